//! The parts of the desktop: what each waits for, what it runs, how it is asked whether it is ready (contract
//! `computer-use.md` 2.1).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::time::{sleep, timeout};

use super::logs::Printing;
use super::processes::Shared;
use super::programs::{Missing, ScreenServer};
use super::unit::{Part, Plan, Probe};
use crate::error::{Error, Result};
use crate::supervisor::Command;

/// How every RFB server begins (RFC 6143 7.1.1).
const RFB: &[u8] = b"RFB ";
/// Longest wait for a server's greeting.
const GREETING: Duration = Duration::from_secs(2);
/// How often a port is tried that says nothing by itself; only until its process is ready.
const TRY: Duration = Duration::from_millis(25);

/// The parts, in the order of their dependence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The X server.
    Screen,
    /// Desktop or window manager.
    Windows,
    /// The VNC server.
    Vnc,
    /// VNC in the browser.
    LiveView,
}

impl Kind {
    /// All of them, the first to start first.
    pub(super) const ALL: [Self; 4] = [Self::Screen, Self::Windows, Self::Vnc, Self::LiveView];

    /// As the contract names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Screen => "xvfb",
            Self::Windows => "xfce4",
            Self::Vnc => "x11vnc",
            Self::LiveView => "novnc",
        }
    }

    /// By its name in the contract.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Position in the order of starting, as the contract counts it.
    pub(super) fn priority(self) -> u16 {
        match self {
            Self::Screen => 100,
            Self::Windows => 200,
            Self::Vnc => 300,
            Self::LiveView => 400,
        }
    }

    /// Whether it ends with the X server.
    pub(super) fn needs_screen(self) -> bool {
        matches!(self, Self::Windows | Self::Vnc)
    }
}

/// One part of one desktop.
#[derive(Debug, Clone)]
pub(super) struct DesktopPart {
    pub(super) kind: Kind,
    pub(super) shared: Arc<Shared>,
}

impl Part for DesktopPart {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    async fn possible(&self) {
        if self.kind.needs_screen() {
            let mut screen = self.shared.unit(Kind::Screen).follow();
            let _ = screen.wait_for(super::unit::State::is_ready).await; // its unit lives as long as we do
        }
    }

    async fn plan(&self) -> Plan {
        match self.kind {
            Kind::Screen => self.screen().await,
            Kind::Windows => self.windows().await,
            Kind::Vnc => self.vnc().await,
            Kind::LiveView => self.live_view().await,
        }
    }

    async fn ready(&self, probe: Probe, printing: &Printing) -> Result<()> {
        match probe {
            Probe::Screen(pipe) => {
                told(pipe).await?;
                let connection = self.shared.server.connection().await?;
                let (width, height) = self.shared.size();
                connection.run(move |wire| wire.set_size(width, height)).await
            }
            Probe::Manager => self.shared.server.connection().await?.manager_came().await,
            Probe::Port(port, greeting) => {
                while !answers(port, greeting).await {
                    tokio::select! {
                        () = printing.more() => {}
                        () = sleep(TRY) => {}
                    }
                }
                Ok(())
            }
        }
    }
}

impl DesktopPart {
    /// A display that answers is used as it is.
    async fn screen(&self) -> Plan {
        let Shared { settings, programs, server, .. } = &*self.shared;
        if let Ok(connection) = server.connection().await {
            return Plan::Present(Box::pin(async move { connection.lost().await }));
        }
        if !settings.display.starts_with(':') {
            return Plan::Missing(format!("the display {} does not answer", settings.display));
        }
        let Some(screen_server) = programs.screen_server() else {
            return Plan::Missing(Missing { program: "Xvfb", package: "xvfb" }.to_string());
        };
        let size = screen_server.start_size(self.shared.size());
        let mut command = Command::new(screen_server.argv(settings, size));
        self.shared.set_speaks_vnc(matches!(screen_server, ScreenServer::Xvnc(_)));
        match pipe_with(PipeFlags::CLOEXEC) {
            Ok((ours, theirs)) => {
                command.descriptors.push((3, Arc::new(theirs)));
                Plan::Run(self.with_environment(command), Probe::Screen(ours))
            }
            Err(error) => Plan::Missing(format!("no pipe: {error}")),
        }
    }

    /// A display that was there before may have its window manager too.
    async fn windows(&self) -> Plan {
        let Shared { programs, server, .. } = &*self.shared;
        if !self.shared.owns_screen()
            && let Ok(connection) = server.connection().await
            && let Ok(Some(_)) = connection.run(|wire| wire.manager()).await
        {
            return Plan::Present(Box::pin(async move { connection.manager_left().await }));
        }
        let Some(argv) = programs.window_manager() else { return Plan::Nothing };
        self.shared.start_bus().await;
        Plan::Run(self.with_environment(Command::new(argv)), Probe::Manager)
    }

    async fn vnc(&self) -> Plan {
        let Shared { settings, programs, .. } = &*self.shared;
        let port = settings.vnc_port;
        let is_there =
            if self.shared.owns_screen() { self.shared.speaks_vnc() } else { answers(port, RFB).await };
        if is_there {
            return Plan::Present(self.screen_gone());
        }
        match programs.vnc_server(settings) {
            Ok(argv) => Plan::Run(self.with_environment(Command::new(argv)), Probe::Port(port, RFB)),
            Err(missing) => Plan::Missing(missing.to_string()),
        }
    }

    async fn live_view(&self) -> Plan {
        let Shared { settings, programs, .. } = &*self.shared;
        match programs.live_view(settings) {
            Ok(argv) => {
                Plan::Run(self.with_environment(Command::new(argv)), Probe::Port(settings.no_vnc_port, b""))
            }
            Err(missing) => Plan::Missing(missing.to_string()),
        }
    }

    /// Resolves when the X server is not ready any more.
    fn screen_gone(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut screen = self.shared.unit(Kind::Screen).follow();
        Box::pin(async move {
            let _ = screen.wait_for(|state| !state.is_ready()).await;
        })
    }

    fn with_environment(&self, mut command: Command) -> Command {
        let Shared { settings, .. } = &*self.shared;
        command.env = vec![("DISPLAY".into(), settings.display.clone().into())];
        if self.kind == Kind::Windows {
            command.env.extend([
                ("HOME".into(), settings.home.clone().into()),
                ("USER".into(), settings.user.clone().into()),
            ]);
            command.cwd = Some(settings.home.clone()).filter(|home| home.is_dir());
        }
        command
    }
}

/// Waits for the line in which an X server tells its number.
async fn told(pipe: OwnedFd) -> Result<()> {
    let read = async {
        let mut pipe = pipe::Receiver::from_owned_fd(pipe)?;
        let mut line = Vec::new();
        while !line.contains(&b'\n') {
            if pipe.read_buf(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    };
    read.await
        .map_err(|error: io::Error| Error::internal("it did not say that it is ready").with_source(error))
}

/// Whether something accepts connections on a loopback port and begins with `greeting`.
async fn answers(port: u16, greeting: &[u8]) -> bool {
    let greeted = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let mut begin = vec![0; greeting.len()];
        stream.ready(Interest::WRITABLE).await?;
        stream.read_exact(&mut begin).await?;
        Ok::<_, io::Error>(begin == greeting)
    };
    matches!(timeout(GREETING, greeted).await, Ok(Ok(true)))
}
