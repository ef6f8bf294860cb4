"""The routes: parse, authorise, call a service, show its answer."""
