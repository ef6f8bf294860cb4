"""`create_app()`: the gateway as an ASGI application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from app import problems
from app.api import accounts, documentation, files, jobs, reports, system, webhooks
from app.api.dependencies import Services
from app.middleware import Gateway
from app.schemas.jobs import Problem
from app.services.accounts import AccountService
from app.services.audit import Audit
from app.services.auth import Authenticator
from app.services.dispatch import Dispatcher
from app.services.files import FileService
from app.services.input_resolution import InputResolver
from app.services.jobs import JobService
from app.services.long_polling import LongPolling
from app.services.notifications import JobNotifications
from app.services.quotas import Quotas
from app.services.rate_limits import RateLimiter
from app.services.reports import ReportService
from app.services.result_cache import ResultCache
from app.services.webhooks import WebhookService
from infra import metrics
from infra.broker import Broker, create_celery
from infra.logs import configure_logging
from infra.settings import Settings
from infra.storage import Storage
from methods.inference.model_registry import Models, declarations
from methods.registry import load_registry
from models.database import async_engine, async_sessions, reading_sessions
from outbound.guard import Guard
from outbound.input_sources import Sources

_DESCRIPTION = """Assays what goes into a model and what comes out of it: scores answers for
hallucination, selects the part of a data set worth training on, ranks distilled data sets.

Submit a job, follow it, fetch its result. Errors are problem details (RFC 9457)."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """A gateway; settings come from the environment when none are given.

    Raises:
        ValueError: a setting is missing or wrong.
    """
    settings = settings or Settings()
    configure_logging(settings)
    registry = load_registry(settings.extra_methods)
    offered = {name: job_type for name, job_type in registry.items() if not job_type.internal}
    secret = settings.require_secret()
    models = declarations(settings.models)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = async_engine(settings, "datassay-gateway")
        sessions, reads = async_sessions(engine), reading_sessions(engine)
        storage = Storage(settings.storage_url)
        broker = Broker(create_celery(settings))
        dispatcher = Dispatcher(broker, sessions)
        notifications = JobNotifications(settings.database_url.get_secret_value())
        app.state.sessions, app.state.broker = sessions, broker
        audit, quotas = Audit(settings.audit_retention), Quotas(settings)
        limits = RateLimiter(settings.broker_url.get_secret_value(), settings.rate_patience)
        app.state.services = Services(
            settings=settings,
            jobs=JobService(
                sessions=sessions,
                reads=reads,
                registry=registry,
                dispatcher=dispatcher,
                notifications=notifications,
                storage=storage,
                models=models,
                quotas=quotas,
                audit=audit,
                result_cache=ResultCache(models),
                inputs=InputResolver(Sources.of(settings), Models(models)),
            ),
            long_polling=LongPolling(reads, notifications),
            files=FileService(sessions, storage, quotas, audit),
            reports=ReportService(reads, storage, secret),
            accounts=AccountService(sessions, quotas, audit, secret, notifications),
            webhooks=WebhookService(sessions, secret, Guard(settings.outbound_allow), audit),
            auth=Authenticator(reads, secret, notifications),
            limits=limits,
        )
        metrics.serve(settings)
        dispatcher.start()
        notifications.start()
        yield
        await notifications.stop()
        await dispatcher.stop()
        await limits.close()
        await engine.dispose()

    app = Gateway(
        title="Datassay",
        version=version("datassay-server"),
        description=_DESCRIPTION,
        openapi_url="/v1/openapi.json",
        lifespan=lifespan,
        max_body_size=settings.max_body_bytes,
        generate_unique_id_function=_operation_id,
        # The pages of FastAPI load their scripts from elsewhere; ours are in `documentation`.
        docs_url=None,
        redoc_url=None,
        openapi_tags=documentation.TAGS,
        # One component a model: a model that comes to be used both ways renames nothing.
        separate_input_output_schemas=False,
    )
    app.include_router(jobs.create_router(offered))
    app.include_router(reports.create_router())
    app.include_router(files.create_router(settings))
    app.include_router(accounts.create_router())
    app.include_router(webhooks.create_router())
    webhooks.declare_webhooks(app)
    app.include_router(system.create_router(offered, models))
    app.include_router(documentation.create_router(offered))
    problems.install(app)
    _declare_problem(app)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


def _declare_problem(app: FastAPI) -> None:
    """Problems are declared by reference; put what they refer to into the document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        if "Problem" not in schemas:
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(problem.pop("$defs", {}))
            schemas["Problem"] = problem
            _remove_validation_errors(document)
            documentation.name_operations(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _remove_validation_errors(document: dict[str, Any]) -> None:
    """FastAPI declares its own shape of a 422 wherever it can; ours are problems."""
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    described = [*document["paths"].values(), *document.get("webhooks", {}).values()]
    for operations in described:
        for operation in operations.values():
            declared = operation["responses"].get("422", {}).get("content", {})
            if "application/json" in declared:
                del operation["responses"]["422"]
