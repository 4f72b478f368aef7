"""What is known of a running hub: figures, logs, spans, a glance at it, and the doctor's findings."""
