//! Builds each service once and hands it what it needs.

use std::io;
use std::path::PathBuf;

use crate::config::Config;
use crate::desktop::{self, Desktop};
use crate::files::Files;
use crate::git::{Git, Remotes};
use crate::platform::passes::Passes;
use crate::platform::paths::Owner;
use crate::platform::shutdown::Shutdown;
use crate::platform::sockets::OwnPorts;
use crate::platform::telemetry::Telemetry;
use crate::ports::Ports;
use crate::process::code::Code;
use crate::process::exec::Exec;
use crate::process::interpreter::Interpreter;
use crate::process::pty::Ptys;
use crate::process::session::Sessions;
use crate::standalone::Standalone;
use crate::supervisor::{Environment, Shells, Supervisor};
use crate::system::System;

/// Every service of the daemon.
#[derive(Debug, Clone)]
pub struct App {
    /// Version, directories, environment, metrics.
    pub system: System,
    /// The file system.
    pub files: Files,
    /// Repositories.
    pub git: Git,
    /// What repositories have elsewhere.
    pub remotes: Remotes,
    /// What listens, and the way to it.
    pub ports: Ports,
    /// Ports that the daemon itself listens on.
    pub own_ports: OwnPorts,
    /// Commands with collected output.
    pub exec: Exec,
    /// Programs with collected output and charts.
    pub code: Code,
    /// Python that keeps its state.
    pub interpreter: Interpreter,
    /// Shells that run commands one by one.
    pub sessions: Sessions,
    /// The screen and what is done on it.
    pub desktop: Desktop,
    /// Interactive terminals.
    pub ptys: Ptys,
    /// Where traces and logs go.
    pub telemetry: Telemetry,
    /// For what outlives a request.
    pub shutdown: Shutdown,
    /// The platform calls of an SDK, when there is no platform.
    pub standalone: Option<Standalone>,
    /// What lets requests in.
    pub passes: Passes,
}

impl App {
    /// Builds the services from the settings.
    ///
    /// # Errors
    /// When the working directory cannot be entered.
    pub fn new(config: &Config, telemetry: &Telemetry, shutdown: &Shutdown) -> io::Result<Self> {
        let home = config.home();
        if config.user_home_as_workdir {
            std::env::set_current_dir(&home)?;
        }
        // Fixed now: an image may start us in a directory that is removed later.
        let work_dir = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let environment = Environment::new(config.environment.clone());
        let supervisor = Supervisor::new(config, environment.clone(), shutdown.clone());
        shutdown.spawn(supervisor.clone().stop_all());
        let shells = Shells::new(environment.clone());
        let owner = if config.inherit_owner { Owner::Parent } else { Owner::Own };
        let (passes, own_ports) = (Passes::new(), OwnPorts::default());
        let connections = usize::try_from(config.max_connections).unwrap_or(usize::MAX);
        let git = Git::new(
            work_dir.clone(),
            &home,
            config.xdg_config_home().as_deref(),
            config.temporary_directory(),
            shutdown.clone(),
        );
        Ok(Self {
            files: Files::new(work_dir.clone(), owner, config.temporary_directory(), shutdown.clone()),
            desktop: Desktop::new(
                desktop::Settings::new(config),
                supervisor.clone(),
                environment.clone(),
                shutdown.clone(),
            ),
            remotes: Remotes::new(git.clone(), environment.clone(), config.git_stall_timeout),
            git,
            ports: Ports::new(own_ports.clone(), connections, shutdown.clone()),
            own_ports,
            exec: Exec::new(supervisor.clone(), shells.clone(), work_dir.clone(), shutdown.clone()),
            code: Code::new(
                supervisor.clone(),
                environment.clone(),
                work_dir.clone(),
                config.temporary_directory(),
                shutdown.clone(),
            ),
            interpreter: Interpreter::new(supervisor.clone(), work_dir.clone(), shutdown.clone()),
            ptys: Ptys::new(supervisor.clone(), shells.clone(), work_dir.clone(), shutdown.clone()),
            sessions: Sessions::new(
                supervisor,
                shells,
                work_dir.clone(),
                home.clone(),
                telemetry.clone(),
                shutdown.clone(),
            ),
            telemetry: telemetry.clone(),
            shutdown: shutdown.clone(),
            standalone: config
                .is_stand_alone()
                .then(|| Standalone::new(config, environment.clone(), passes.clone(), shutdown.clone())),
            passes,
            system: System::new(work_dir, home, environment, telemetry.clone()),
        })
    }
}
