// SPDX-License-Identifier: GPL-2.0 OR MIT

//! One call of an operation, between two marks by which its instructions can be told from all others, for who writes down what the
//! machine executes (`lab bench --profile`).

use std::hint::black_box;
use std::io::{stdin, BufRead};

use anyhow::{ensure, Context, Result};
use serde::Serialize;

/// Calls before the one that is looked at: what is done once is done then.
const BEFORE: usize = 8;

/// Where the marks are, as it is printed when everything is ready.
#[derive(Serialize)]
struct Marks {
    begin: usize,
    end: usize,
}

/// Executed right before the call.
#[inline(never)]
extern "C" fn begin() {
    black_box(1);
}

/// Executed right after it.
#[inline(never)]
extern "C" fn end() {
    black_box(2);
}

/// Prepares, says so, and waits for a line before the call, and for one after it.
pub fn once(mut call: impl FnMut() -> Result<()>) -> Result<()> {
    for _ in 0..BEFORE {
        call()?;
    }
    let marks = Marks {
        begin: begin as usize,
        end: end as usize,
    };
    println!("{}", serde_json::to_string(&marks)?);
    await_line()?;
    begin();
    let outcome = call();
    end();
    outcome?;
    println!("{{\"done\":true}}");
    await_line()
}

fn await_line() -> Result<()> {
    let mut line = String::new();
    let length = stdin().lock().read_line(&mut line).context("stdin")?;
    ensure!(length > 0, "nobody gives the word on standard input");
    Ok(())
}
