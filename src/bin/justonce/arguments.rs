//! What the program can be asked.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use justonce::RequestId;
use justonce::inspect::StateView;

const AFTER_HELP: &str = "\
A store that a service has open is asked through its socket, which the service makes with one line:

    let _inspector = justonce::inspect::serve(&store)?;

A store that nobody has open is opened and left as it is; what was in flight shows as lapsed, as
after a restart. Until that is done, no service can open it. Only forget and forget-project change
it.

Exit status:
  0  found, sound, done
  1  not found; or damaged
  2  wrong usage
  3  the store cannot be reached, opened or read
  4  refused: too many ask, in flight, or too long to tell";

/// Looks into an idempotency table, beside the service that has it open or on its own.
#[derive(Debug, Parser)]
#[command(name = "justonce", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Arguments {
    /// The store's directory.
    #[arg(short, long, global = true, value_name = "DIR", default_value = ".")]
    pub(crate) store: PathBuf,

    /// Answers in JSON, one value a line.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// The service opens the store with `Owner::External`: leases go on while it is closed.
    #[arg(long, global = true)]
    pub(crate) external_owners: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Counts, sizes and times since the store was opened.
    Stats,
    /// What is remembered of an operation.
    Get {
        #[command(flatten)]
        names: Names,
        /// Writes the bytes of its reply and nothing else.
        #[arg(long, conflicts_with = "json")]
        body: bool,
    },
    /// What is remembered of a request.
    Request {
        /// Its id, `rr_…`.
        id: RequestId,
    },
    /// The operations, in no order.
    Ls {
        #[command(flatten)]
        which: Which,
    },
    /// The operations without a reply: in flight, lapsed and released ones.
    InFlight,
    /// What became of each attempt at an operation, newest first.
    History {
        #[command(flatten)]
        names: Names,
    },
    /// The files that records are in.
    Generations,
    /// Reads everything and says what of it is damaged.
    Verify {
        /// Reads no faster, to leave the disk to the service.
        #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
        mib_per_second: Option<u64>,
    },
    /// The operations with the bodies of their replies, as JSON, one a line.
    Export {
        #[command(flatten)]
        which: Which,
    },
    /// Forgets an operation of a store that nobody has open.
    Forget {
        #[command(flatten)]
        names: Names,
    },
    /// Forgets all operations of a project of a store that nobody has open.
    ForgetProject {
        /// The project.
        project: Name,
    },
    /// Writes what a shell needs to complete these arguments.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Writes the manual page.
    Man {
        /// Writes a page for each command into this directory.
        directory: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Names {
    /// The project.
    pub(crate) project: Name,
    /// The key.
    pub(crate) key: Name,
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Only those of this project.
    #[arg(long)]
    pub(crate) project: Option<Name>,
    /// Only those in this state.
    #[arg(long)]
    pub(crate) state: Option<State>,
}

/// A project or key: exact bytes.
#[derive(Debug, Clone)]
pub(crate) struct Name(OsString);

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum State {
    InFlight,
    Lapsed,
    Released,
    Completed,
    Failed,
}

impl Name {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl From<OsString> for Name {
    fn from(name: OsString) -> Self {
        Name(name)
    }
}

impl From<State> for StateView {
    fn from(state: State) -> Self {
        match state {
            State::InFlight => StateView::InFlight,
            State::Lapsed => StateView::Lapsed,
            State::Released => StateView::Released,
            State::Completed => StateView::Completed,
            State::Failed => StateView::Failed,
        }
    }
}
