"""SQLAlchemy: the context of the current request is sent whenever a session begins a transaction.

    pip install sqlalchemy psycopg[binary]
    python sqlalchemy_example.py postgresql+psycopg://user:password@host/database

AsyncSession does it, too. What is written without a Session (engine.begin()) or with AUTOCOMMIT has no context.
"""

import json
import sys
from contextvars import ContextVar

from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session

# Set by the web framework for each request.
audit_context: ContextVar[dict | None] = ContextVar("audit_context", default=None)


@event.listens_for(Session, "after_begin")
def send_context(session, transaction, connection):
    context = audit_context.get()
    # A savepoint begins within a transaction that has said so already.
    if context and not transaction.nested:
        connection.execute(text("SELECT muniment.context(CAST(:context AS jsonb))"), {"context": json.dumps(context)})


if __name__ == "__main__":
    engine = create_engine(sys.argv[1])
    with Session(engine) as session:
        session.execute(text("CREATE TABLE IF NOT EXISTS sqlalchemy_example (id int PRIMARY KEY, note text)"))
        session.commit()
    audit_context.set({"user_id": 7, "user_name": "lan", "change_reason": "an example"})
    with Session(engine) as session, session.begin():
        session.execute(text("INSERT INTO sqlalchemy_example VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET note = sqlalchemy_example.note || 'x'"))
