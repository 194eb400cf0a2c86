//! `quorate results`: standard output, and files through a directory that a guest's path cannot leave.

use std::{
    io,
    path::{Component, Path, PathBuf},
};

use cap_std::{
    ambient_authority,
    fs::{Dir, OpenOptions},
};
use clap::Args;
use registry::id::JobId;
use serde::Serialize;

use super::{
    CliError, Exit, Outcome,
    connect::{ConnectArgs, find_job},
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
    let root = dir.join(FILES_DIR);
    let failed = |source| CliError::File { path: root.clone(), source };
    std::fs::create_dir_all(&root).map_err(failed)?;
    let root = Dir::open_ambient_dir(&root, ambient_authority()).map_err(failed)?;
    for file in &files {
        let path = place(file);
        let shown = dir.join(FILES_DIR).join(output::shown(&path.to_string_lossy()));
        let created = create(&root, &path).map_err(|source| CliError::File { path: shown.clone(), source })?;
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

/// Makes a file below `root`. Nothing is followed out of it, and nothing that is there is replaced.
fn create(root: &Dir, path: &Path) -> io::Result<std::fs::File> {
    let is_plain = path.components().all(|component| matches!(component, Component::Normal(_)));
    if !is_plain {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the task wrote a path that leaves its directory"));
    }
    if let Some(parent) = path.parent() {
        root.create_dir_all(parent)?;
    }
    Ok(root.open_with(path, OpenOptions::new().write(true).create_new(true))?.into_std())
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
    fn a_guests_path_cannot_leave_the_directory() {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::os::unix::fs::symlink("..", inner.join("up")).unwrap();
        let root = Dir::open_ambient_dir(&inner, ambient_authority()).unwrap();
        for path in ["../a", "/tmp/quorate-escape", "x/../../a", "up/a", "."] {
            assert!(create(&root, Path::new(path)).is_err(), "{path} was written");
        }
        create(&root, Path::new("x/y/z")).unwrap();
        assert!(create(&root, Path::new("x/y/z")).is_err(), "a file was replaced");
        assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1);
    }

    #[test]
    fn odd_names_are_escaped_in_routes() {
        assert_eq!(encode("a b/c?#%ü.txt"), "a%20b/c%3F%23%25%C3%BC.txt");
    }
}
