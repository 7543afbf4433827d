//! A [`Medium`] as a file that a loop device can stand on, served through FUSE: a disk whose power, failures and slowness
//! the test commands.
//!
//! The loop device turns the kernel's writes into writes of the file and its cache flushes into syncs of it, so a file system
//! on it believes in a disk with a volatile write cache. Nothing of the file is cached by the kernel.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite,
    Request, WriteFlags,
};

use crate::medium::{Medium, SECTOR};

const NAME: &str = "disk";
const FILE: INodeNo = INodeNo(2);
/// Nothing about the file changes.
const EVER: Duration = Duration::from_secs(3600);
/// Reads and writes go on while a flush takes its time.
const THREADS: usize = 4;

/// A disk. The file is gone when it is dropped.
pub(crate) struct Disk {
    file: PathBuf,
    shared: Arc<Shared>,
    _served: BackgroundSession,
}

struct Shared {
    medium: Mutex<Medium>,
    flush_time: Mutex<Box<dyn FnMut() -> Duration + Send>>,
}

impl Disk {
    /// Serves `medium` as a file below the folder `mount`.
    pub(crate) fn serve(medium: Medium, mount: &Path) -> io::Result<Self> {
        let shared =
            Shared { medium: Mutex::new(medium), flush_time: Mutex::new(Box::new(|| Duration::ZERO)) };
        let shared = Arc::new(shared);
        let mut config = Config::default();
        config.n_threads = Some(THREADS);
        let served = fuser::spawn_mount(Served(shared.clone()), mount, &config)?;
        Ok(Self { file: mount.join(NAME), shared, _served: served })
    }

    /// The file for the loop device.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// What the medium is to do or to suffer.
    pub(crate) fn medium(&self) -> MutexGuard<'_, Medium> {
        self.shared.medium.lock().unwrap()
    }

    /// How long each flush takes from now on.
    pub(crate) fn slow_down(&self, flush_time: impl FnMut() -> Duration + Send + 'static) {
        *self.shared.flush_time.lock().unwrap() = Box::new(flush_time);
    }
}

struct Served(Arc<Shared>);

impl Served {
    fn medium(&self) -> MutexGuard<'_, Medium> {
        self.0.medium.lock().unwrap()
    }

    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let file = inode == FILE;
        FileAttr {
            ino: inode,
            size: if file { self.medium().octets() } else { 0 },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if file { FileType::RegularFile } else { FileType::Directory },
            perm: if file { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: SECTOR as u32,
            flags: 0,
        }
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&EVER, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&EVER, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.medium().read(offset, size as usize) {
            Ok(octets) => reply.data(&octets),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        _inode: INodeNo,
        _: FileHandle,
        offset: u64,
        octets: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.medium().write(offset, octets) {
            Ok(()) => reply.written(octets.len() as u32),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn fsync(&self, _: &Request, _inode: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let time = (self.0.flush_time.lock().unwrap())();
        std::thread::sleep(time);
        match self.medium().flush() {
            Ok(()) => reply.ok(),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn flush(&self, _: &Request, _inode: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Closing a file flushes no disk.
        reply.ok();
    }
}
