//! `top` and `list --watch`: what VMs do, in a picture that changes.
//!
//! The daemon is asked once in an interval, and does nothing between: rates are computed here, from
//! two of its replies. `list --watch` is told by the daemon when something happens.
//!
//! With the screen open there is one place to wait, [`Screen::wait`]: keys and signals are heard
//! also while the daemon is late with a reply. If the daemon ends, so does the verb, as `monitor`
//! does: the user shall see that it was gone, and a new daemon begins its counters anew.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::connection::Connection;
use super::rates::{self, Row, Sample};
use super::session::Session;
use super::terminal::{Key, Screen, Waited};
use super::verbs::Sort;
use super::{DONE, Trouble, show};
use crate::protocol::client::{NoReply, ReplyMessage};

/// Ctrl-C, which is a key in raw mode.
const INTERRUPT: u8 = 3;
/// How long changes are gathered before the list is shown anew.
const GATHER: Duration = Duration::from_millis(200);
/// The methods that are asked again and again.
const USAGE: &str = "io.volnet.Usage";
const LIST: &str = "io.volnet.List";
/// Lines beside the rows: the summary, the heading and the keys.
const FRAME: usize = 3;

/// `top`.
pub(super) fn top(
    session: &mut Session,
    once: bool,
    interval_s: u64,
    sort: Sort,
) -> Result<u8, Trouble> {
    let mut connection = session.connect()?;
    let interval = Duration::from_secs(interval_s);
    let before = sample(&mut connection)?;
    if once {
        thread::sleep(interval);
        let mut rows = sample(&mut connection)?.rows(&before);
        rates::sort(&mut rows, sort);
        let lines = rates::whole_table(&rows);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        session.print(&(lines.join("\n") + "\n"))?;
        return Ok(DONE);
    }
    let Some(mut screen) = Screen::open().map_err(terminal)? else {
        return Err(Trouble::Input("top needs a terminal; --once needs none".into()));
    };
    let mut view = View { sort, first: 0, rows: Vec::new() };
    watch(&mut screen, &mut connection, &mut view, before, interval)?;
    Ok(DONE)
}

/// What is shown.
struct View {
    sort: Sort,
    /// The first row that is shown.
    first: usize,
    rows: Vec<Row>,
}

fn watch(
    screen: &mut Screen,
    connection: &mut Connection,
    view: &mut View,
    mut before: Sample,
    interval: Duration,
) -> Result<(), Trouble> {
    // Something is shown at once, without rates.
    view.rows = before.rows(&before);
    // When to ask; `None` while there is no answer.
    let mut next = Some(Instant::now() + interval.min(Duration::from_secs(1)));
    loop {
        let (height, width) = screen.size();
        screen.show(&view.lines(height, width)).map_err(terminal)?;
        let answer = next.is_none().then(|| connection.descriptor());
        match screen.wait(answer, next).map_err(terminal)? {
            Waited::End => return Ok(()),
            Waited::Key(key) if view.pressed(key, height) => return Ok(()),
            Waited::Source => {
                let now = usage(&connection.receive()?)?;
                (view.rows, before) = (now.rows(&before), now);
                next = Some(Instant::now() + interval);
            }
            Waited::Key(_) | Waited::Time => {}
        }
        if next.is_some_and(|at| at <= Instant::now()) {
            connection.send(USAGE, json!({}), false)?;
            next = None;
        }
    }
}

impl View {
    /// Takes a key, and returns whether it is the last.
    fn pressed(&mut self, key: Key, height: usize) -> bool {
        let page = height.saturating_sub(FRAME).max(1);
        match key {
            Key::Char(b'q' | INTERRUPT) => return true,
            Key::Char(key) => {
                if let Some(sort) = Sort::of_key(key) {
                    (self.sort, self.first) = (sort, 0);
                }
            }
            Key::Up => self.first = self.first.saturating_sub(1),
            Key::PageUp => self.first = self.first.saturating_sub(page),
            Key::Down => self.first += 1,
            Key::PageDown => self.first += page,
        }
        false
    }

    /// The picture for a screen of this size.
    fn lines(&mut self, height: usize, width: usize) -> Vec<String> {
        rates::sort(&mut self.rows, self.sort);
        let room = height.saturating_sub(FRAME);
        self.first = self.first.min(self.rows.len().saturating_sub(room));
        let cut = |line: String| line.chars().take(width).collect::<String>();
        let mut lines = vec![cut(rates::summary(&self.rows))];
        lines.extend(rates::table(self.rows.iter().skip(self.first).take(room), width));
        lines.resize(height.saturating_sub(1), String::new());
        lines.push(cut(rates::keys(self.sort)));
        lines.truncate(height);
        lines
    }
}

fn sample(connection: &mut Connection) -> Result<Sample, Trouble> {
    usage(&connection.call(USAGE, json!({}))?)
}

fn usage(reply: &ReplyMessage) -> Result<Sample, Trouble> {
    let garbled = || Trouble::NoReply(NoReply::Garbled("it has no usage of VMs".into()));
    let mut sample = Sample::read(&reply.parameters).ok_or_else(garbled)?;
    sample.complete(used_by);
    Ok(sample)
}

/// Processor time in microseconds and memory in bytes of a process (proc(5)).
fn used_by(pid: u32) -> Option<(u64, u64)> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let stat = read("stat")?;
    // Behind the name, which may have any character.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().collect();
    let ticks: u64 = fields.get(11..13)?.iter().filter_map(|it| it.parse::<u64>().ok()).sum();
    let pages: u64 = read("statm")?.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??.max(1) as u64;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()?? as u64;
    Some((ticks * 1_000_000 / per_second, pages * page))
}

/// `list --watch`.
pub(super) fn list(session: &mut Session) -> Result<u8, Trouble> {
    let mut events = session.connect()?;
    events.send("io.volnet.Monitor", json!({}), true)?;
    // The state comes first.
    events.receive()?;
    let mut connection = session.connect()?;
    let mut reply = connection.call(LIST, json!({}))?;
    let screen = if session.json { None } else { Screen::open().map_err(terminal)? };
    if let Some(mut screen) = screen {
        watch_list(&mut screen, &mut events, &mut connection, table(&reply.parameters))?;
        return Ok(DONE);
    }
    loop {
        session.show(&reply.parameters, |reply| table(reply) + "\n")?;
        session.out.flush()?;
        events.receive()?;
        thread::sleep(GATHER);
        take_all(&mut events)?;
        reply = connection.call(LIST, json!({}))?;
    }
}

/// What a list that is watched waits for, beside keys and signals.
enum Next {
    /// That something happens.
    Event,
    /// That more may have happened, until this time.
    More(Instant),
    /// The list as it is now.
    Reply,
}

fn watch_list(
    screen: &mut Screen,
    events: &mut Connection,
    connection: &mut Connection,
    mut list: String,
) -> Result<(), Trouble> {
    let (mut first, mut next) = (0, Next::Event);
    loop {
        let (height, width) = screen.size();
        let room = height.saturating_sub(1);
        screen.show(&page(&list, &mut first, room, width)).map_err(terminal)?;
        let (source, until) = match next {
            Next::Event => (Some(events.descriptor()), None),
            Next::More(until) => (None, Some(until)),
            Next::Reply => (Some(connection.descriptor()), None),
        };
        match (screen.wait(source, until).map_err(terminal)?, &next) {
            (Waited::End | Waited::Key(Key::Char(b'q' | INTERRUPT)), _) => return Ok(()),
            (Waited::Key(Key::Up), _) => first = first.saturating_sub(1),
            (Waited::Key(Key::PageUp), _) => first = first.saturating_sub(room),
            (Waited::Key(Key::Down), _) => first += 1,
            (Waited::Key(Key::PageDown), _) => first += room,
            (Waited::Source, Next::Reply) => {
                list = table(&connection.receive()?.parameters);
                next = Next::Event;
            }
            (Waited::Source, _) => next = Next::More(Instant::now() + GATHER),
            (Waited::Key(Key::Char(_)) | Waited::Time, _) => {}
        }
        if matches!(next, Next::More(until) if until <= Instant::now()) {
            take_all(events)?;
            connection.send(LIST, json!({}), false)?;
            next = Next::Reply;
        }
    }
}

/// The heading, so many lines of a list as there is room for, and the keys.
fn page(list: &str, first: &mut usize, room: usize, width: usize) -> Vec<String> {
    let all: Vec<&str> = list.lines().collect();
    *first = (*first).min(all.len().saturating_sub(room));
    let shown = all.iter().take(1).chain(all.iter().skip(*first + 1)).take(room);
    let mut lines: Vec<String> = shown.map(|line| line.chars().take(width).collect()).collect();
    lines.resize(room, String::new());
    lines.push("arrows:scroll  q:quit".chars().take(width).collect());
    lines
}

fn table(reply: &Map<String, Value>) -> String {
    show::vms(reply.get("vms").unwrap_or(&Value::Null))
}

/// Takes the events that have come: one look at the list is for all of them.
fn take_all(events: &mut Connection) -> Result<(), Trouble> {
    while events.has_more().map_err(terminal)? {
        events.receive()?;
    }
    Ok(())
}

fn terminal(error: io::Error) -> Trouble {
    Trouble::File { what: "terminal".into(), error }
}
