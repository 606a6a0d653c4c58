"""Evaluations out of answers that were stored before: by `samdeploy label`, or by the shards of an evaluation."""
