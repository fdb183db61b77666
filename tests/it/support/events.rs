//! What the kernel says of one file, so that a test can wait for what the daemon does with it.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
use tokio::io::unix::AsyncFd;

/// Opening and closing of a file, from now on.
pub(crate) struct Events {
    inotify: AsyncFd<OwnedFd>,
    seen: Vec<ReadFlags>,
}

impl Events {
    pub(crate) fn of(file: &Path) -> Self {
        let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        add_watch(&inotify, file, WatchFlags::OPEN | WatchFlags::CLOSE_NOWRITE).unwrap();
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe, for descriptors that nobody owns; this one is owned"
        )]
        let inotify = AsyncFd::new(inotify).unwrap();
        Self { inotify, seen: Vec::new() }
    }

    /// Waits for an event by name, as inotify(7) has it without its prefix.
    pub(crate) async fn next(&mut self, name: &str) {
        let wanted = ReadFlags::from_name(name).unwrap();
        loop {
            let seen = self.seen.iter().position(|event| event.contains(wanted));
            if let Some(at) = seen {
                self.seen.drain(..=at);
                return;
            }
            let mut ready = self.inotify.readable().await.unwrap();
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(self.inotify.get_ref(), &mut buffer);
            while let Ok(event) = reader.next() {
                self.seen.push(event.events());
            }
            ready.clear_ready();
        }
    }
}
