"""Answer pictures on a web socket, of programs on this machine only: python web_socket_server.py MODEL [PORT]."""

import asyncio
import json
import sys

import cv2
import numpy as np
from websockets.asyncio.server import ServerConnection, serve

from cornernet_runtime import Detector


async def main(model: str, port: str = "8765") -> None:
    detector, turn = Detector.open(model), asyncio.Lock()  # it works on one picture at a time

    async def answer(socket: ServerConnection) -> None:
        async for message in socket:  # the bytes of a JPEG or PNG; what is none ends this connection
            picture = cv2.imdecode(np.frombuffer(message, np.uint8), cv2.IMREAD_COLOR)
            async with turn:
                found = await asyncio.to_thread(detector, picture)
            await socket.send(json.dumps([(name, score, box.tolist()) for box, score, name in found.above(0.5)]))

    async with serve(answer, "127.0.0.1", int(port), origins=[None]) as server:  # None: programs, and no web page
        print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
