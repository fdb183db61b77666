//! Become init when pid 1; read the settings, start logging, run, turn the result into an exit code.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use toolboxd::app::App;
use toolboxd::config::Config;
use toolboxd::platform::paths::Owner;
use toolboxd::platform::replacement::Replacement;
use toolboxd::platform::shutdown::Shutdown;
use toolboxd::platform::telemetry::{self, Telemetry};
use toolboxd::platform::{init, microvm, resident};
use toolboxd::process::session;
use toolboxd::server::{self, Access, router::Api};
use tracing::{error, info};

// musl's own allocator is slow under threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config = match Config::from_process() {
        Ok(config) => config,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    init::hide_variable(toolboxd::config::TOKEN_VARIABLE);
    if let Some(follow) = config.prints_entrypoint() {
        return print_entrypoint(&config, follow);
    }
    if config.health {
        return exit_code(server::health::check(&config.listen_addresses()));
    }
    if let Some(target) = &config.install {
        return exit_code(install(target));
    }
    if config.microvm {
        microvm::set_up();
    }
    // Before any thread exists: from here on, pid 1 is another, tiny process.
    if let init::Role::Init(code) = init::split() {
        if config.microvm {
            microvm::end();
        }
        return code;
    }
    let log = match telemetry::start_log(&config) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("toolboxd: {error}");
            return ExitCode::from(2);
        }
    };
    match run(&config, log.telemetry()) {
        Ok(code) => code,
        Err(error) => {
            error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn print_entrypoint(config: &Config, follow: bool) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    exit_code(runtime.and_then(|runtime| runtime.block_on(session::print(config, follow))))
}

/// Copies this program, so that `target` is never there half.
fn install(target: &Path) -> std::io::Result<()> {
    let mut program = File::open("/proc/self/exe")?;
    let mut copy = Replacement::begin(target, Owner::Own, None)?;
    std::io::copy(&mut program, &mut copy)?;
    copy.commit()?;
    std::fs::set_permissions(target, Permissions::from_mode(0o755))
}

fn exit_code(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("toolboxd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config, telemetry: &Telemetry) -> std::io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8)))
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(config, telemetry));
    // A blocking call that hangs, as on a dead network file system, must not keep the daemon from ending.
    runtime.shutdown_background();
    result
}

async fn serve(config: &Config, telemetry: &Telemetry) -> std::io::Result<ExitCode> {
    let shutdown = Shutdown::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let app = App::new(config, telemetry, &shutdown)?;
    if let Err(error) = app.sessions.start_entrypoint(&config.entrypoint).await {
        error!("the entrypoint cannot be started: {error}");
        return Ok(ExitCode::from(2));
    }
    let listener = server::bind(&config.listen_addresses())?;
    let address = listener.local_addr()?;
    app.own_ports.set_api(address.port());
    let (access, made) = Access::new(config, address, app.passes.clone());
    let access = Arc::new(access);
    let api = Api::new(&app, Arc::clone(&access), config.docs);
    announce(address, made.as_ref());
    resident::give_back();

    let stop = shutdown.clone();
    shutdown.spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = stop.cancelled() => return,
        };
        info!("{name}: stopping");
        stop.cancel();
    });
    let connections = usize::try_from(config.max_connections).unwrap_or(usize::MAX);
    // Processes that do not heed SIGTERM are killed after their own grace period; their commands are answered then.
    let grace = config.shutdown_grace_period.max(config.termination_grace_period + Duration::from_secs(1));
    server::serve(listener, api, access, connections, shutdown, grace).await;
    telemetry.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Tells on stdout where the API is, once it is there; stderr has the log. The line is part of the interface.
#[expect(clippy::print_stdout, reason = "the ready line")]
fn announce(address: std::net::SocketAddr, made: Option<&toolboxd::config::Token>) {
    println!("Starting toolbox server on port {}", address.port());
    println!("toolboxd {} is ready on http://{address}", env!("CARGO_PKG_VERSION"));
    if let Some(token) = made {
        println!("token (none was set): {}", token.reveal());
    }
    use std::io::Write;
    let _ = std::io::stdout().flush();
}
