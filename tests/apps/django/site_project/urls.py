"""The routes and their views."""

import os
import time

from django.http import HttpResponse
from django.urls import path


def index(request):
    return HttpResponse(f"django pid={os.getpid()}\n", content_type="text/plain")


def slow(request):
    time.sleep(0.7)
    return HttpResponse(f"django slow pid={os.getpid()}\n", content_type="text/plain")


def health(request):
    return HttpResponse("ok", content_type="text/plain")


urlpatterns = [path("", index), path("slow", slow), path("health", health)]
