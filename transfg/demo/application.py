"""The ASGI application: gradio's page behind the gate, examples, and the health address."""

import os
import time
import warnings
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from transfg import __version__
from transfg.demo.address import Address
from transfg.demo.connections import protocol
from transfg.demo.forgetting import INTERVAL, Forgetting
from transfg.demo.gate import Gate
from transfg.demo.limits import base64_length
from transfg.demo.memory import memory_use
from transfg.demo.service import Service
from transfg_core.fonts import BUNDLED

SPARE = 10_000  # bytes of a request beside its picture
CONNECTIONS = 200  # at a time; more are answered with 503
Sweep = Callable[[], Awaitable[None]]

# Read by gradio and its packages when they are imported: no telemetry, no look at versions, no
# server-side rendering by Node.
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_ANALYTICS_MAX_EVENTS": "100",  # of the times that gradio notes
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def prepare(folder: Path) -> None:
    """Environment for gradio, before it is imported; `folder` is for what it writes."""
    os.environ.update(QUIET | {"GRADIO_TEMP_DIR": str(folder), "TMPDIR": str(folder)})


def configuration(service: Service, kinds: Sequence[str], address: Address) -> Any:
    """The application and its limits, as uvicorn's `Config`."""
    import uvicorn

    app, sweep = application(service, kinds, address)
    return uvicorn.Config(
        app,
        http=protocol(),
        log_level="warning",
        access_log=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=20,
        callback_notify=sweep,
        timeout_notify=INTERVAL,
        ws="none",
        server_header=False,
        lifespan="on",
    )


def application(service: Service, kinds: Sequence[str], address: Address) -> tuple[Gate, Sweep]:
    """The ASGI application, and what drops unread answers. `kinds` are those of the examples."""
    import fastapi
    import gradio

    from transfg.demo.page import appearance, build

    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    began = time.monotonic()

    @app.get("/health")
    def health() -> dict[str, Any]:
        workers = service.pool.health()
        ready = all(worker["state"] == "ready" for worker in workers.values())
        status = "stopping" if service.pool.stopping else "ok" if ready else "degraded"
        return {
            "status": status,
            "version": __version__,
            "models": list(service.names),
            "workers": workers,
            "memory": memory_use(),
            "uptime_seconds": round(time.monotonic() - began, 1),
        }

    @app.get("/examples/{number}")
    def example(number: int) -> fastapi.Response:
        if number >= len(kinds):
            return fastapi.Response(status_code=404)
        return fastapi.Response(service.examples[number], media_type=kinds[number])

    @app.get("/fallback.ttf")
    def chinese_font() -> fastapi.Response:
        return fastapi.responses.FileResponse(BUNDLED, media_type="font/ttf")

    @app.middleware("http")
    async def language(request: fastapi.Request, proceed: Any) -> Any:
        """A reader whose browser prefers Chinese gets the Chinese page, unless English is asked."""
        prefers = request.headers.get("accept-language", "").lower().startswith("zh")
        if request.url.path == "/" and prefers and "lang" not in request.query_params:
            return fastapi.responses.RedirectResponse("/zh", status_code=302)
        return await proceed(request)

    blocks = build(service)
    forgetting = Forgetting(blocks)
    with warnings.catch_warnings():
        # of the two pages, in spite of ssr_mode=False
        warnings.filterwarnings("ignore", "SSR mode is not supported", UserWarning)
        mounted = gradio.mount_gradio_app(
            app,
            blocks,
            path="",
            server_name=address.host,
            server_port=address.port,
            footer_links=[],
            run_history=False,
            show_error=True,
            max_file_size=1,  # bytes: nothing is uploaded as a file
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            **appearance(),
        )
    largest = base64_length(service.megabytes) + SPARE
    return Gate(mounted, largest, address, forgetting.delivered), forgetting.sweep
