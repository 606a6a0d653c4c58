"""`samdeploy bench`: latency, throughput, cold start and memory of engines, and the alternatives beside them.

This file imports nothing: the fresh process of `cold_start_child` passes through it, and is timed.
"""
