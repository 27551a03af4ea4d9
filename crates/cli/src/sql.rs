//! `muniment sql`: a question in SQL, answered from the data folder.

use crate::args::{ResultFormat, Sql};
use crate::config::Config;
use crate::data_folder;
use crate::error::{CliError, Result};
use futures::TryStreamExt;
use muniment_engine::query::output::{Encoder, OutputFormat};
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::process::ExitCode;

/// Longest question in bytes that is read from standard input.
const MAX_QUERY_BYTES: u64 = 1 << 20;

/// Runs the command.
pub async fn run(config: Config, options: Sql) -> Result<ExitCode> {
    let query = match options.query {
        Some(query) => query,
        None => read_query()?,
    };
    let format = match options.format {
        Some(ResultFormat::Table) => OutputFormat::Table,
        Some(ResultFormat::Csv) => OutputFormat::Csv,
        Some(ResultFormat::Json) => OutputFormat::Json,
        Some(ResultFormat::Ndjson) => OutputFormat::Ndjson,
        Some(ResultFormat::Arrow) => OutputFormat::Arrow,
        None if std::io::stdout().is_terminal() => OutputFormat::Table,
        None => OutputFormat::Csv,
    };
    let engine = data_folder::ask(&config).await?;
    let mut result = engine.sql(query.trim().trim_end_matches(';'), Vec::new()).await?;
    let mut encoder = Encoder::new(format, &result.schema)?;
    while let Some(batch) = result.try_next().await? {
        if !print(&encoder.write(&batch)?)? {
            return Ok(ExitCode::SUCCESS);
        }
    }
    print(&encoder.finish()?)?;
    if format == OutputFormat::Json {
        print(b"\n")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read_query() -> Result<String> {
    let mut text = String::new();
    #[expect(clippy::disallowed_methods, reason = "the reader is bounded")]
    let read = std::io::stdin().take(MAX_QUERY_BYTES).read_to_string(&mut text);
    read.map_err(CliError::file("reading", "standard input"))?;
    if text.trim().is_empty() {
        return Err(CliError::Usage("there is no question: give it as an argument or on standard input".to_owned()));
    }
    Ok(text)
}

/// Writes to standard output. Returns `false` if nobody reads on.
pub fn print(bytes: &[u8]) -> Result<bool> {
    let mut output = std::io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CliError::file("writing", "standard output")(error)),
    }
}
