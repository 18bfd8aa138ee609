//! The socket's place: a name in the store's directory, for the user of the service alone.
//!
//! Whoever binds it holds the store's lock. So what is found under its name is left over from a run
//! that was cut off, and nobody else removes it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind};
use crate::storage::INSPECT_SOCKET;

/// Longest path of a socket, in bytes.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) const MAX_PATH_BYTES: usize = 107;
/// Longest path of a socket, in bytes.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) const MAX_PATH_BYTES: usize = 103;

/// A bound socket in the file system.
#[derive(Debug)]
pub(super) struct Bound {
    path: PathBuf,
    /// Device and inode, by which it is told from another that has its name by now.
    identity: (u64, u64),
}

pub(super) fn path_in(directory: &Path) -> PathBuf {
    directory.join(INSPECT_SOCKET)
}

pub(super) fn is_too_long(path: &Path) -> bool {
    path.as_os_str().len() > MAX_PATH_BYTES
}

/// Binds the socket in place of one that is left over.
pub(super) fn bind(directory: &Path) -> Result<(UnixListener, Bound), Error> {
    let path = path_in(directory);
    if is_too_long(&path) {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "{} is {} bytes long and the path of a socket can have {MAX_PATH_BYTES}: keep the \
                 store at a shorter path, or do without the inspector",
                path.display(),
                path.as_os_str().len()
            ),
        ));
    }
    let bound = remove_leftover(&path).and_then(|()| listen(&path)).and_then(|listener| {
        listener.set_nonblocking(true)?;
        // Where the system does not make it so at once.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let identity = identity(&path)?;
        Ok((listener, Bound { path: path.clone(), identity }))
    });
    bound.map_err(|error| Error::io(path.display(), error))
}

impl Bound {
    /// Takes the name away, unless it is another's by now.
    pub(super) fn remove(&self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // What is left over is replaced by whoever comes next.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn remove_leftover(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
        // Binding says that the name is taken.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Nobody else can connect, not even before the mode is set: the name gets that of the socket.
#[cfg(target_os = "linux")]
fn listen(path: &Path) -> io::Result<UnixListener> {
    use rustix::fs::{Mode, fchmod};
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
    };
    const WAITING_ASKERS: i32 = 16;
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, WAITING_ASKERS)?;
    Ok(socket.into())
}

#[cfg(not(target_os = "linux"))]
fn listen(path: &Path) -> io::Result<UnixListener> {
    UnixListener::bind(path)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}
