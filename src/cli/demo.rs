//! `orbweaver demo`: the product at work without a cluster, as a person sees it.
//!
//! Owns: the command line of it. Never does: touch anything of the machine but a temporary folder
//! and a port on loopback. `demo/lab.rs` brings a Kubernetes in memory up, with the real controller,
//! two real agents and the real CNI plugin code; `demo/story.rs` plays the story and checks every
//! step of it; `demo/seen.rs` looks; `demo/screen.rs` shows.

mod examples;
mod lab;
mod network;
mod screen;
mod seen;
mod story;

use std::cell::Cell;
use std::process::ExitCode;

use tokio::time::Instant;

use self::lab::Lab;
use self::screen::Screen;
use self::story::Story;

/// What the demo is told.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Leave it up at the end, for kubectl to look in, until it is interrupted.
    #[arg(long)]
    keep: bool,
    /// Port of the API server on loopback; one that is free without it.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// Plays the demo; who interrupts it before its end gets no success.
///
/// Errors: what was expected and did not happen.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    super::runtime()?.block_on(play(arguments))
}

async fn play(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { keep, port } = *arguments;
    let start = Instant::now();
    let shutdown = super::shutdown()?;
    let (lab, mut parts) = Lab::start(port).await?;
    let mut story = Story::new(lab.client(), Screen::new(start));
    let is_played = Cell::new(false);
    let told = async {
        story.play(&lab).await?;
        is_played.set(true);
        if keep {
            story.stay(&lab).await
        } else {
            story.end(start).await
        }
    };
    tokio::select! {
        biased;
        outcome = told => outcome?,
        error = parts.ended() => return Err(error),
        () = shutdown => {
            // Before its end nothing is shown to be as it should be.
            if !is_played.get() {
                return Ok(ExitCode::from(super::SIGINT));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
