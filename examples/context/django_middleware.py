"""Django: a middleware that runs each view of a user who is logged in within a transaction that says who acts.

In settings: MIDDLEWARE = [..., "app.django_middleware.AuditContextMiddleware"], as the last one: it calls the view itself, so that
the checks of a middleware after it, such as that against CSRF, would be left out, and none sees exceptions in process_exception.

Outside are, as with ATOMIC_REQUESTS: what a TemplateResponse or a StreamingHttpResponse writes when it is rendered, and what other
middlewares write, such as sessions (don't attach django_session: its keys are good for logging in).
"""

import hashlib
import json
from contextlib import contextmanager

from asgiref.sync import async_to_sync, iscoroutinefunction
from django.db import connection, transaction


@contextmanager
def acting(context):
    """A transaction in which every change is this user's; for commands and tasks, too."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT muniment.context(%s::jsonb)", [json.dumps(context)])
        yield


def context_of(request):
    session = request.session.session_key
    return {
        "user_id": request.user.pk,  # A whole number: leave it out if yours is a UUID.
        "user_name": request.user.get_username(),
        # Whoever knows the key of a session can use it.
        "session_id": session and hashlib.sha256(session.encode()).hexdigest(),
        "ip_address": request.META.get("REMOTE_ADDR"),
        "user_agent": request.META.get("HTTP_USER_AGENT"),
        "correlation_id": request.headers.get("X-Request-Id"),
    }


class AuditContextMiddleware:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)

    def process_view(self, request, view, args, kwargs):
        # Views with @transaction.non_atomic_requests call acting() themselves.
        if not request.user.is_authenticated or connection.alias in getattr(view, "_non_atomic_requests", ()):
            return None
        if iscoroutinefunction(view):
            view = async_to_sync(view)  # The database is used by this thread all the same, within this transaction.
        # An exception of the view leaves through here, so that the transaction is rolled back.
        with acting(context_of(request)):
            return view(request, *args, **kwargs)
