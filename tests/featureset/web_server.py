"""A web server in a process of its own: `python web_server.py FOLDER LOG` prints its port.

`/files/` is aiohttp's own, with ranges, and `/listed/`, with a page of every folder too. The others
serve the same folder as no server should. Each request is a line of LOG: path and range.
"""

import asyncio
import sys
from pathlib import Path

from aiohttp import web

FOLDER, LOG = Path(sys.argv[1]), Path(sys.argv[2])
PIECE = 4096


@web.middleware
async def log(request: web.Request, handler):
    with LOG.open("a") as file:
        file.write(f"{request.path} {request.headers.get('Range', '')}\n")
    return await handler(request)


def content(request: web.Request) -> bytes:
    path = FOLDER / request.match_info["path"]
    if not path.is_file():
        raise web.HTTPNotFound
    return path.read_bytes()


def asked(request: web.Request) -> bytes:
    """The part that is asked for."""
    first, _, last = request.headers.get("Range", "bytes=0-")[6:].partition("-")
    return content(request)[int(first) : int(last) + 1 if last else None]


async def whole(request: web.Request) -> web.Response:
    """Knows no ranges."""
    return web.Response(body=content(request))


async def short(request: web.Request) -> web.Response:
    """Says and sends a half."""
    body = content(request)
    return web.Response(body=body[: len(body) // 2] if request.path.endswith("npy") else body)


async def elsewhere(request: web.Request) -> web.Response:
    """Says that it sends the part that was asked for, and sends the beginning."""
    return web.Response(body=content(request), status=206 if "Range" in request.headers else 200)


async def broken(request: web.Request) -> web.StreamResponse:
    """Breaks off after a piece, at every request, of the length that it promised."""
    body = asked(request)
    response = web.StreamResponse(status=206 if "Range" in request.headers else 200)
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[:PIECE])
    if len(body) > PIECE:
        request.transport.close()
    return response


async def dropping(request: web.Request) -> web.StreamResponse:
    """Of a part that is longer than a piece, nothing arrives."""
    body = asked(request)
    response = web.StreamResponse(status=206 if "Range" in request.headers else 200)
    response.content_length = len(body)
    await response.prepare(request)
    if len(body) > PIECE and request.path.endswith(("npy", "parquet", "json")):
        request.transport.close()
    else:
        await response.write(body)
    return response


async def slow(request: web.Request) -> web.StreamResponse:
    body = asked(request)
    response = web.StreamResponse(status=206 if "Range" in request.headers else 200)
    response.content_length = len(body)
    await response.prepare(request)
    for at in range(0, len(body), PIECE):
        await response.write(body[at : at + PIECE])
        await asyncio.sleep(0.002)
    return response


async def endless(request: web.Request) -> web.StreamResponse:
    """Never ends."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(content(request))
    while True:
        await response.write(bytes(2**20))


ASKED = set()


async def busy(request: web.Request) -> web.Response:
    """Has no time at the first request for a file."""
    if request.path not in ASKED:
        ASKED.add(request.path)
        raise web.HTTPServiceUnavailable
    return web.Response(body=content(request))


async def flood(request: web.Request) -> web.StreamResponse:
    """A page of links that never ends."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b'<a href="x">x</a>' * 2**16)


app = web.Application(middlewares=[log])
app.router.add_static("/files", FOLDER)
app.router.add_static("/listed", FOLDER, show_index=True)
for handler in (whole, short, elsewhere, broken, dropping, slow, endless, busy, flood):
    app.router.add_get(f"/{handler.__name__}/{{path:.*}}", handler)


async def main() -> None:
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sys.stdout.write(f"{site._server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


asyncio.run(main())
