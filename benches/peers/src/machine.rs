//! The machine: what it is, and what is asked of its file system.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use crate::peer::Failure;

/// `f_type` of file systems in memory, where a sync costs nothing.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// What a block of `st_blocks` is.
const BLOCK_BYTES: u64 = 512;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    processor: String,
    processors: usize,
    memory_gib: u64,
    kernel: String,
    file_system: String,
}

impl Machine {
    pub(crate) fn of(directory: &Path) -> Self {
        let field = |path: &str, name: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find_map(|line| Some(line.strip_prefix(name)?.to_owned()));
            line.unwrap_or_default().trim_start_matches([' ', '\t', ':']).to_owned()
        };
        let memory = field("/proc/meminfo", "MemTotal");
        let kibibytes: u64 = memory.split(' ').next().unwrap_or("").parse().unwrap_or(0);
        Machine {
            processor: field("/proc/cpuinfo", "model name"),
            processors: std::thread::available_parallelism().map_or(0, Into::into),
            memory_gib: kibibytes >> 20,
            kernel: field("/proc/sys/kernel/ostype", "")
                + " "
                + &field("/proc/sys/kernel/osrelease", ""),
            file_system: file_system(directory),
        }
    }

    pub(crate) fn sentence(&self) -> String {
        format!(
            "{}, {} processors, {} GiB of memory, {}, {}",
            self.processor, self.processors, self.memory_gib, self.kernel, self.file_system
        )
    }
}

/// The type of the file system that is mounted closest above a directory.
fn file_system(directory: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let path = fs::canonicalize(directory).unwrap_or_default();
    let mounted = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, kind) = (fields.next()?, fields.next()?);
        path.starts_with(at).then_some((at.len(), kind))
    });
    mounted.max_by_key(|(length, _)| *length).map_or_else(String::new, |(_, kind)| kind.to_owned())
}

/// An error where a directory is in memory.
pub(crate) fn refuse_memory(directory: &Path) -> Result<(), Failure> {
    let kind = u64::try_from(rustix::fs::statfs(directory)?.f_type)?;
    if IN_MEMORY.contains(&kind) {
        let at = directory.display();
        return Err(format!("{at} is in memory, where a sync costs nothing: give --dir").into());
    }
    Ok(())
}

/// Drops what the page cache holds of all files below a directory.
pub(crate) fn drop_cached(directory: &Path) -> io::Result<()> {
    each_file(directory, &mut |path| {
        let file = fs::File::open(path)?;
        // What is dirty stays cached otherwise.
        file.sync_all()?;
        Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
    })
}

/// Bytes that the files below a directory take, holes left out.
pub(crate) fn bytes_on_disk(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    each_file(directory, &mut |path| {
        bytes += fs::metadata(path)?.blocks() * BLOCK_BYTES;
        Ok(())
    })?;
    Ok(bytes)
}

/// Files that go while they are looked at are passed over.
fn each_file(directory: &Path, work: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let done = if path.is_dir() { each_file(&path, work) } else { work(&path) };
        match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}
