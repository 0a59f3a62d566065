"""Several processes at one job: ranks, parts of a job, worker processes."""
