//! `quorate results`: standard output, and files.

use std::path::{Path, PathBuf};

use clap::Args;
use registry::id::JobId;
use serde::Serialize;

use super::{
    CliError, Exit, Outcome,
    connect::{ConnectArgs, find_job},
    folder::Folder,
    output,
};
use crate::client::{Client, answers::FileAnswer};

/// Name of the file that standard output goes to in a directory.
const STDOUT_FILE: &str = "stdout";
/// Name of the directory that files go to in a directory.
const FILES_DIR: &str = "files";

#[derive(Debug, Args)]
pub(super) struct ResultsArgs {
    /// The job, or the beginning of its id.
    job: String,
    /// One shard's standard output, as soon as its result stands.
    #[arg(long, conflicts_with = "out_dir")]
    shard: Option<u32>,
    /// Write standard output to a file.
    #[arg(long, value_name = "FILE", conflicts_with = "out_dir")]
    out: Option<PathBuf>,
    /// Write standard output and all files below a directory.
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Written {
    job: JobId,
    stdout_bytes: u64,
    files: Vec<FileAnswer>,
}

pub(super) async fn run(args: ResultsArgs) -> Outcome {
    let client = args.connect.client()?;
    let job = find_job(&client, &args.job).await?;
    if let Some(doubtful) = client.job(job).await?.doubtful {
        output::note(&format!("careful: {doubtful}"));
    }
    let mut written = Written { job, stdout_bytes: 0, files: Vec::new() };
    match (&args.out_dir, &args.out) {
        (Some(dir), _) => {
            std::fs::create_dir_all(dir).map_err(|source| CliError::File { path: dir.clone(), source })?;
            written.stdout_bytes = write_stdout(&client, job, None, Some(&dir.join(STDOUT_FILE))).await?;
            written.files = write_files(&client, job, dir).await?;
        }
        (None, None) if args.connect.json => {
            written.files = client.get(&format!("/v1/jobs/{job}/results/files")).await?;
        }
        (None, out) => written.stdout_bytes = write_stdout(&client, job, args.shard, out.as_deref()).await?,
    }
    if args.connect.json {
        output::json(&written)?;
    } else if let Some(dir) = &args.out_dir {
        let bytes = output::bytes(written.stdout_bytes);
        output::note(&format!("{}: {bytes} of standard output, {} files", dir.display(), written.files.len()));
    }
    Ok(Exit::Ok)
}

/// Streams standard output to a file, or to ours.
pub(super) async fn write_stdout(
    client: &Client,
    job: JobId,
    shard: Option<u32>,
    out: Option<&Path>,
) -> Result<u64, CliError> {
    let shard = shard.map_or_else(String::new, |shard| format!("?shard={shard}"));
    let download = client.download(&format!("/v1/jobs/{job}/results{shard}")).await?;
    match out {
        Some(path) => {
            let file = tokio::fs::File::create(path).await;
            let mut file = file.map_err(|source| CliError::File { path: path.to_owned(), source })?;
            Ok(download.write_to(&mut file, path).await?)
        }
        None => match download.write_to(&mut tokio::io::stdout(), Path::new("standard output")).await {
            Ok(bytes) => Ok(bytes),
            Err(crate::client::ClientError::File { source, .. }) => Err(CliError::Output(source)),
            Err(error) => Err(error.into()),
        },
    }
}

async fn write_files(client: &Client, job: JobId, dir: &Path) -> Result<Vec<FileAnswer>, CliError> {
    let files: Vec<FileAnswer> = client.get(&format!("/v1/jobs/{job}/results/files")).await?;
    if files.is_empty() {
        return Ok(files);
    }
    let folder = Folder::open(&dir.join(FILES_DIR))?;
    for file in &files {
        let (created, shown) = folder.create(&place(file))?;
        let route = format!("/v1/jobs/{job}/results/files/{}/{}", file.shard.index, encode(&file.path));
        let download = client.download(&route).await?;
        let mut created = tokio::fs::File::from_std(created);
        download.write_to(&mut created, &shown).await?;
    }
    Ok(files)
}

/// Shards may write files of the same name, so each has a directory.
fn place(file: &FileAnswer) -> PathBuf {
    PathBuf::from(format!("shard-{:06}", file.shard.index)).join(&file.path)
}

/// A path as part of a URL: components keep their slashes, everything unusual is escaped.
fn encode(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~') {
            text.push(byte.into());
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_are_escaped_in_routes() {
        assert_eq!(encode("a b/c?#%ü.txt"), "a%20b/c%3F%23%25%C3%BC.txt");
    }
}
