"""The worker: Celery app, executor, sweeper, and the runtime a method runs in."""
