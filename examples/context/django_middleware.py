"""Django: a middleware that runs each view of a user who is logged in within a transaction that says who acts.

In settings: MIDDLEWARE = [..., "app.django_middleware.AuditContextMiddleware"], behind the authentication.
"""

import json

from django.db import connection, transaction


class AuditContextMiddleware:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)

    def process_view(self, request, view, args, kwargs):
        if not request.user.is_authenticated:
            return None
        context = {
            "user_id": request.user.pk,
            "user_name": request.user.get_username(),
            "session_id": request.session.session_key,
            "ip_address": request.META.get("REMOTE_ADDR"),
            "user_agent": request.META.get("HTTP_USER_AGENT"),
            "correlation_id": request.headers.get("X-Request-Id"),
        }
        # An exception of the view leaves through here, so that the transaction is rolled back.
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT muniment.context(%s::jsonb)", [json.dumps(context)])
            return view(request, *args, **kwargs)
