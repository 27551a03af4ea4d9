//! A small service over one shared pool, whose users appear by name on the changes that they make.
//!
//! The name comes from the header `x-user`, which stands for whatever authenticates your users. Each request that writes begins a transaction that says who
//! acts ([`Database::begin_as`]); nothing else in the application knows of auditing.

use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgPool, Postgres, Row, Transaction};

/// The shared pool.
#[derive(Clone)]
struct Database(PgPool);

/// What the audit log is told: the members that Muniment knows.
#[derive(Serialize)]
struct Context<'a> {
    user_name: &'a str,
    session_id: Option<&'a str>,
    user_agent: Option<&'a str>,
    change_reason: Option<&'a str>,
}

impl Database {
    /// Begins a transaction in which every change is this user's.
    async fn begin_as(&self, user: &User, change_reason: Option<&str>) -> sqlx::Result<Transaction<'static, Postgres>> {
        let context =
            Context { user_name: &user.name, session_id: user.session.as_deref(), user_agent: user.agent.as_deref(), change_reason };
        let context = serde_json::to_string(&context).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let mut transaction = self.0.begin().await?;
        sqlx::query("SELECT muniment.context($1::text::jsonb)").bind(context).execute(&mut *transaction).await?;
        Ok(transaction)
    }
}

/// Who asks.
struct User {
    name: String,
    session: Option<String>,
    agent: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let name = header("x-user").ok_or((StatusCode::UNAUTHORIZED, "who are you? x-user says"))?;
        Ok(Self { name, session: header("x-session"), agent: header("user-agent") })
    }
}

#[derive(Serialize)]
struct Case {
    id: i32,
    title: String,
    status: String,
}

#[derive(Deserialize)]
struct Change {
    title: String,
    status: String,
    reason: Option<String>,
}

type Failure = (StatusCode, String);

fn failed(error: sqlx::Error) -> Failure {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

async fn list(State(database): State<Database>) -> Result<Json<Vec<Case>>, Failure> {
    let rows = sqlx::query("SELECT id, title, status FROM cases ORDER BY id").fetch_all(&database.0).await.map_err(failed)?;
    Ok(Json(rows.iter().map(|row| Case { id: row.get("id"), title: row.get("title"), status: row.get("status") }).collect()))
}

async fn store(
    State(database): State<Database>,
    user: User,
    Path(id): Path<i32>,
    Json(change): Json<Change>,
) -> Result<StatusCode, Failure> {
    let mut transaction = database.begin_as(&user, change.reason.as_deref()).await.map_err(failed)?;
    sqlx::query(
        "INSERT INTO cases (id, title, status) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET title = excluded.title, status = excluded.status",
    )
    .bind(id)
    .bind(change.title)
    .bind(change.status)
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(State(database): State<Database>, user: User, Path(id): Path<i32>) -> Result<StatusCode, Failure> {
    let mut transaction = database.begin_as(&user, None).await.map_err(failed)?;
    let done = sqlx::query("DELETE FROM cases WHERE id = $1").bind(id).execute(&mut *transaction).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(if done.rows_affected() == 0 { StatusCode::NOT_FOUND } else { StatusCode::NO_CONTENT })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL").map_err(|_| "DATABASE_URL says where the database is")?;
    let listen = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let pool = PgPoolOptions::new().max_connections(5).connect(&url).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS cases (id int PRIMARY KEY, title text NOT NULL, status text NOT NULL)").execute(&pool).await?;
    let routes = Router::new().route("/cases", get(list)).route("/cases/{id}", put(store).delete(remove)).with_state(Database(pool));
    let listener = tokio::net::TcpListener::bind(&listen).await?;
    println!("listening on {listen}");
    axum::serve(listener, routes).await?;
    Ok(())
}
