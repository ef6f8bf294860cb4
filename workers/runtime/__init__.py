"""What a running method touches: its context, the storage and the job's store."""
