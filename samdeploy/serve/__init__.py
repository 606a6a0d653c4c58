"""`samdeploy serve`: bundles behind the Open Inference Protocol (KServe v2), in one process."""
