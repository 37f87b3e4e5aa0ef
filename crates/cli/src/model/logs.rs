//! `pontoon model logs`.

use std::io::Write;
use std::process::ExitCode;

use pontoon_daemon::Config;

use http_body_util::BodyExt;
use hyper::Method;

use super::http::{Daemon, query};
use crate::config::block_on;

/// Show the last lines of the daemon's log, or of one model's engine
#[derive(clap::Args)]
pub struct Arguments {
    /// Name or id of the model
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    /// Go on with new lines (of the daemon's log) until interrupted
    #[arg(long, short, conflicts_with = "model")]
    follow: bool,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<ExitCode, String> {
    let path = match &arguments.model {
        Some(model) => format!("/pontoon/v1/logs?model={}", query(model)),
        None if arguments.follow => "/logs?follow=1".to_owned(),
        None => "/logs".to_owned(),
    };
    let daemon = Daemon::here(config)?;
    block_on(async {
        let mut body = daemon.send(Method::GET, &path, None).await?.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| format!("the daemon broke off: {error}"))?;
            let Some(bytes) = frame.data_ref() else { continue };
            // Whoever reads may have enough.
            if std::io::stdout().write_all(bytes).is_err() {
                return Ok(());
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
