"""The smallest settings that serve. ALLOWED_HOSTS is strict on purpose: a health check with a wrong Host gets 400."""

SECRET_KEY = "for-tests-only"
DEBUG = False
ALLOWED_HOSTS = ["django.test"]
ROOT_URLCONF = "site_project.urls"
INSTALLED_APPS = []
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
