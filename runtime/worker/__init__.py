"""A worker: takes activities from queues, runs them, reports to their owners."""
