"""A FastAPI app, served by uvicorn."""

import asyncio
import os

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

app = FastAPI(default_response_class=PlainTextResponse)
print(f"fastapi starts as pid {os.getpid()}", flush=True)


@app.get("/")
async def index():
    return f"fastapi pid={os.getpid()}\n"


@app.get("/slow")
async def slow():
    await asyncio.sleep(0.7)
    return f"fastapi slow pid={os.getpid()}\n"


@app.get("/health")
async def health():
    return "ok"
