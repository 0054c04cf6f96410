"""A Flask app, served by gunicorn."""

import os
import sys
import time

from flask import Flask

app = Flask(__name__)
print(f"flask starts as pid {os.getpid()}", file=sys.stderr, flush=True)


@app.get("/")
def index():
    return f"flask pid={os.getpid()}\n"


@app.get("/slow")
def slow():
    time.sleep(0.7)
    return f"flask slow pid={os.getpid()}\n"


@app.get("/health")
def health():
    return "ok"
