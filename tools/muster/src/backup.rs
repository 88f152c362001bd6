//! `muster backup` and `muster restore`: a copy of a data directory, taken while its services run.
//!
//! A database is copied by SQLite itself, as of one moment; every other file is whole whenever it is there. Who sends is copied
//! before who receives, and the orchestrator last: what was acknowledged meanwhile is then with the receiver, or still in the
//! sender's outbox, and nobody answers what the orchestrator does not know of.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use proto::content::{ContentHash, ContentHasher};
use serde::{Deserialize, Serialize};
use service::data::{LAYOUT_VERSION, RESTORE_DIRECTORY, VERSION_FILE, make};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use crate::{exit, show};

/// What stands in a backup beside its files.
const MANIFEST: &str = "manifest.json";
/// Bytes that are copied at a time.
const CHUNK: usize = 256 * 1024;

/// What a backup is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Manifest {
    /// Which program made it.
    version: String,
    /// How the data directories are laid out.
    layout: u32,
    /// When.
    made: Timestamp,
    /// What is in it.
    files: Vec<Copied>,
}

/// A file in a backup.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Copied {
    /// Below the data directory.
    path: PathBuf,
    /// Its size.
    size_bytes: u64,
    /// The hash of its content.
    sha256: ContentHash,
}

/// `muster backup`
pub(crate) async fn backup(data: &Path, to: &Path) -> anyhow::Result<u8> {
    let services = services_of(data)?;
    let target = Target::whole(to)?;
    let made = Timestamp::now();
    let mut files = Vec::new();
    for service in services {
        // The databases first, and what else there is by then: what an outbox has more than they know is sent once more.
        for path in files_of(data, &service)?.into_iter().filter(|path| is_database(path)) {
            let (from, into) = (data.join(&path), target.make_room(&path)?);
            snapshot(&from, &into).await.with_context(|| format!("{} cannot be copied", from.display()))?;
            let (size_bytes, sha256) = read_all(&mut File::open(&into)?, |_| Ok(()))?;
            files.push(Copied { path, size_bytes, sha256 });
        }
        for path in files_of(data, &service)?.into_iter().filter(|path| !is_database(path)) {
            let (from, into) = (data.join(&path), target.make_room(&path)?);
            if let Some((size_bytes, sha256)) = copied(&from, &into)? {
                files.push(Copied { path, size_bytes, sha256 });
            }
        }
    }
    let count = files.len();
    let size: u64 = files.iter().map(|file| file.size_bytes).sum();
    let manifest = Manifest { version: env!("CARGO_PKG_VERSION").to_owned(), layout: LAYOUT_VERSION, made, files };
    service::data::write_private(&target.make_room(Path::new(MANIFEST))?, &serde_json::to_vec_pretty(&manifest)?)?;
    target.finish()?;
    show::note(format!("{count} files, {} MB, are in {}", size.div_ceil(1_000_000), to.display()));
    show::note("Keys are among them: keep it as you keep the data directory.");
    Ok(exit::DONE)
}

/// `muster restore`
pub(crate) async fn restore(data: &Path, from: &Path) -> anyhow::Result<u8> {
    let path = from.join(MANIFEST);
    let text =
        fs::read(&path).with_context(|| format!("{} is no backup: {MANIFEST} cannot be read", from.display()))?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not what `muster backup` writes", path.display()))?;
    if manifest.layout > LAYOUT_VERSION {
        bail!("Muster {} made this backup, with a newer layout: restore it with that version", manifest.version);
    }
    // Nothing is written outside, whatever the manifest says.
    let outside = |file: &&Copied| file.path.components().any(|part| !matches!(part, Component::Normal(_)));
    if let Some(file) = manifest.files.iter().find(outside) {
        bail!("{} names a file that is not below a data directory: {}", path.display(), file.path.display());
    }
    let target = Target::of(data, &manifest)?;
    for file in &manifest.files {
        let (source, into) = (from.join(&file.path), target.make_room(&file.path)?);
        let copy = copied(&source, &into)?.with_context(|| format!("{} is missing", source.display()))?;
        if copy != (file.size_bytes, file.sha256.clone()) {
            bail!("{} is not what was backed up; nothing was restored", source.display());
        }
        if is_database(&file.path) {
            check(&into).await.with_context(|| format!("{} is damaged; nothing was restored", source.display()))?;
        }
    }
    target.finish()?;
    show::note(format!("{} is as it was at {:.0}; start it as before", data.display(), manifest.made));
    Ok(exit::DONE)
}

/// The services whose data is here, below the directory: it may be one's own, or that of `muster up` with all of them.
fn services_of(data: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if data.join(VERSION_FILE).is_file() {
        return Ok(vec![PathBuf::new()]);
    }
    let mut services = Vec::new();
    let entries =
        fs::read_dir(data).with_context(|| format!("the data directory {} cannot be read", data.display()))?;
    for entry in entries {
        let name = PathBuf::from(entry?.file_name());
        if data.join(&name).join(VERSION_FILE).is_file() {
            services.push(name);
        }
    }
    if services.is_empty() {
        bail!("{} is not the data directory of a service, nor of `muster up`", data.display());
    }
    let rank = |name: &Path| match name.to_str() {
        Some(name) if name.starts_with("orchestrator") => 2,
        Some(name) if name.starts_with("repository") => 1,
        _ => 0,
    };
    services.sort_by_key(|name| (rank(name), name.clone()));
    Ok(services)
}

/// What has to be copied of a service, in order.
fn files_of(data: &Path, service: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    files_below(&data.join(service), service, &mut found)?;
    found.sort();
    Ok(found)
}

/// What has to be copied of a directory. Locks, sockets and what is not whole yet are not.
fn files_below(directory: &Path, path: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("{} cannot be read", directory.display()))?,
    };
    for entry in entries {
        let entry = entry?;
        let path = path.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            bail!("{} is a link: what it leads to would be left out; put it in its place", entry.path().display());
        }
        if kind.is_dir() {
            files_below(&entry.path(), &path, found)?;
        } else if kind.is_file() && !is_passing(&path) {
            found.push(path);
        }
    }
    Ok(())
}

fn is_database(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "db")
}

/// Whether a file is of a running process alone.
fn is_passing(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name == "lock" || [".tmp", ".db-wal", ".db-shm", ".db-journal"].iter().any(|end| name.ends_with(end))
}

/// Where files go: they are there when all are whole.
enum Target {
    /// A directory that gets its name at the end.
    Whole { partial: PathBuf, path: PathBuf },
    /// Directories that have to stay what they are, such as a container's volumes: one, or one for each service. What is not
    /// whole yet stands in a directory inside, beside which no service starts.
    InPlace { data: PathBuf, services: Vec<PathBuf> },
}

impl Target {
    /// Where a backup is restored to.
    fn of(data: &Path, manifest: &Manifest) -> anyhow::Result<Self> {
        let is_service = |path: &&Path| path.file_name().is_some_and(|name| name == VERSION_FILE);
        let versions = manifest.files.iter().map(|file| file.path.as_path()).filter(is_service);
        let services: Vec<PathBuf> = versions.filter_map(Path::parent).map(Path::to_owned).collect();
        let is_mounted = services.iter().any(|service| is_mount_point(&data.join(service)));
        if !is_mounted {
            return Self::whole(data);
        }
        for service in &services {
            let place = data.join(service);
            let mut entries = fs::read_dir(&place)
                .with_context(|| format!("{} has to be there: others beside it are mounted", place.display()))?;
            if entries.next().is_some() {
                bail!("{} is not empty: what is restored goes into an empty one", place.display());
            }
        }
        for service in &services {
            let partial = data.join(service).join(RESTORE_DIRECTORY);
            make(&partial).with_context(|| format!("{} cannot be made", partial.display()))?;
        }
        Ok(Self::InPlace { data: data.to_owned(), services })
    }

    fn whole(path: &Path) -> anyhow::Result<Self> {
        let is_there = match fs::read_dir(path).map(|mut entries| entries.next().is_some()) {
            Ok(true) => bail!("{} is not empty: give a directory that is not there yet", path.display()),
            Ok(false) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error).with_context(|| format!("{} cannot be written", path.display())),
        };
        if is_there {
            fs::remove_dir(path).with_context(|| format!("{} cannot be replaced", path.display()))?;
        }
        let name = path.file_name().with_context(|| format!("{} is no directory's name", path.display()))?;
        let partial = path.with_file_name(format!("{}.partial", name.to_string_lossy()));
        if partial.exists() {
            bail!("{} is left of an attempt that was broken off: remove it first", partial.display());
        }
        make(&partial).with_context(|| format!("{} cannot be made", partial.display()))?;
        Ok(Self::Whole { partial, path: path.to_owned() })
    }

    /// Where a file goes.
    fn make_room(&self, path: &Path) -> anyhow::Result<PathBuf> {
        let into = match self {
            Self::Whole { partial, .. } => partial.join(path),
            Self::InPlace { data, services } => {
                let of = services.iter().find_map(|service| Some((service, path.strip_prefix(service).ok()?)));
                let (service, rest) = of.with_context(|| format!("{} is of no service", path.display()))?;
                data.join(service).join(RESTORE_DIRECTORY).join(rest)
            }
        };
        if let Some(parent) = into.parent() {
            make(parent).with_context(|| format!("{} cannot be made", parent.display()))?;
        }
        Ok(into)
    }

    fn finish(self) -> anyhow::Result<()> {
        let done = match &self {
            Self::Whole { partial, path } => {
                sync_directories(partial)?;
                fs::rename(partial, path).with_context(|| format!("{} cannot be made", path.display()))?;
                match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    Some(parent) => File::open(parent)?.sync_all().map_err(Into::into),
                    None => Ok(()),
                }
            }
            Self::InPlace { data, services } => services.iter().try_for_each(|service| move_up(&data.join(service))),
        };
        if done.is_err() && matches!(self, Self::InPlace { .. }) {
            // What was moved stays beside what was not, where no service starts.
            std::mem::forget(self);
        }
        done
    }
}

/// Moves what was restored to its place. Services start there from then on.
fn move_up(place: &Path) -> anyhow::Result<()> {
    let partial = place.join(RESTORE_DIRECTORY);
    sync_directories(&partial)?;
    for entry in fs::read_dir(&partial)? {
        let entry = entry?;
        let into = place.join(entry.file_name());
        fs::rename(entry.path(), &into).with_context(|| format!("{} cannot be made", into.display()))?;
    }
    File::open(place)?.sync_all()?;
    fs::remove_dir(&partial)?;
    Ok(File::open(place)?.sync_all()?)
}

impl Drop for Target {
    fn drop(&mut self) {
        // Nothing half done is left; after `finish` there is nothing of that name.
        match self {
            Self::Whole { partial, .. } => drop(fs::remove_dir_all(partial)),
            Self::InPlace { data, services } => {
                for service in services {
                    drop(fs::remove_dir_all(data.join(service).join(RESTORE_DIRECTORY)));
                }
            }
        }
    }
}

/// Whether a directory is the root of a mounted file system: it cannot be replaced by another one.
fn is_mount_point(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Ok(path) = path.canonicalize() else { return false };
    let shown = path.to_string_lossy();
    // Five words before it; odd letters are written as `\040`, and nobody mounts volumes at such a path.
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(&*shown))
}

fn sync_directories(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_directories(&entry.path())?;
        }
    }
    File::open(directory)?.sync_all()
}

/// Copies a file; none if it is gone, as a message is that has arrived.
fn copied(from: &Path, into: &Path) -> anyhow::Result<Option<(u64, ContentHash)>> {
    let failed = || format!("{} cannot be copied to {}", from.display(), into.display());
    let mut source = match File::open(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        source => source.with_context(failed)?,
    };
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(into).with_context(failed)?;
    let read = read_all(&mut source, |chunk| file.write_all(chunk)).with_context(failed)?;
    file.sync_all().with_context(failed)?;
    Ok(Some(read))
}

/// Reads a file to its end; its size and hash.
fn read_all(file: &mut File, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<(u64, ContentHash)> {
    let mut chunk = vec![0; CHUNK];
    let (mut size, mut hasher) = (0, ContentHasher::default());
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            return Ok((size, hasher.finish()));
        }
        each(&chunk[..count])?;
        hasher.update(&chunk[..count]);
        size += count as u64;
    }
}

/// Has SQLite write what a database holds at this moment, whoever else writes to it.
async fn snapshot(from: &Path, into: &Path) -> anyhow::Result<()> {
    // What it writes is nobody else's to read: the file is there before it writes.
    File::options().create_new(true).write(true).mode(0o600).open(into)?;
    let mut connection = open(from).await?;
    let into_text = into.to_str().context("the name of the directory is not UTF-8")?;
    let copied = sqlx::query("VACUUM INTO $1").bind(into_text).execute(&mut connection).await;
    connection.close().await?;
    copied?;
    Ok(File::open(into)?.sync_all()?)
}

/// An error for a database that is damaged.
async fn check(path: &Path) -> anyhow::Result<()> {
    let mut connection = open(path).await?;
    let found: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut connection).await?;
    connection.close().await?;
    if found == "ok" { Ok(()) } else { bail!("{found}") }
}

async fn open(path: &Path) -> anyhow::Result<SqliteConnection> {
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(std::time::Duration::from_secs(30));
    Ok(options.disable_statement_logging().connect().await?)
}
