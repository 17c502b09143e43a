use super::*;

const SOON: Option<Duration> = Some(Duration::from_secs(60));

/// What this test says: other tests of the process say things meanwhile.
fn line(level: LogLevel, message: &str) -> Log {
    let mut line = Log::new(level, "ottla::test");
    line.say(format_args!("{message}"));
    line
}

/// A queue that is on no list, so that nobody else fills it.
fn unlisted(least: LogLevel) -> LogReader {
    let reader = LogReader::open(least).unwrap();
    reader.forget();
    reader.0.lock().lines.clear();
    reader.0.wake.clear();
    reader
}

fn messages_of_tests(reader: &LogReader) -> Vec<String> {
    let mut messages = Vec::new();
    while let Some(line) = reader.next(Some(Duration::ZERO)).unwrap() {
        if line.target == "ottla::test" {
            messages.push(line.to_string());
        }
    }
    messages
}

#[cfg(unix)]
fn readable(reader: &LogReader) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let fd = reader.fd();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
}

#[test]
fn every_reader_gets_what_it_wants() {
    let (all, warnings) =
        (LogReader::open(LogLevel::Trace).unwrap(), LogReader::open(LogLevel::Warn).unwrap());
    assert!(wanted(LogLevel::Trace));
    tell(line(LogLevel::Debug, "small"));
    tell(line(LogLevel::Warn, "large"));
    drop(line(LogLevel::Error, "said to nobody"));
    assert_eq!(messages_of_tests(&all), ["small", "large"]);
    assert_eq!(messages_of_tests(&warnings), ["large"]);
    all.close();
    tell(line(LogLevel::Error, "late"));
    assert_eq!(all.next(SOON).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(messages_of_tests(&warnings), ["late"]);
}

#[test]
fn an_event_of_the_pool_reaches_a_host_without_subscriber() {
    let reader = LogReader::open(LogLevel::Warn).unwrap();
    let metrics = crate::metrics::Metrics::new(tracing::Span::none(), "here:9092".into());
    metrics.broker(3).late(Duration::from_millis(250));
    metrics.broker(3).probe(); // DEBUG
    let mine = loop {
        let line = reader.next(SOON).unwrap().expect("the line is there");
        if line.fields.last().is_some_and(|(_, value)| value == "here:9092") {
            break line;
        }
    };
    assert_eq!((mine.level, mine.target), (LogLevel::Warn, "ottla::net"));
    assert_eq!(mine.to_string(), "broker late broker=3 silent=250ms bootstrap=here:9092");
}

#[test]
fn a_full_queue_counts_what_it_loses_and_says_so() {
    let reader = unlisted(LogLevel::Info);
    for i in 0..MAX_QUEUED_LOGS + 7 {
        reader.0.push(line(LogLevel::Info, &i.to_string()));
    }
    assert_eq!(reader.dropped(), 7);
    assert_eq!(reader.next(SOON).unwrap().unwrap().dropped, 0);
    reader.0.push(line(LogLevel::Info, "after"));
    reader.0.push(line(LogLevel::Info, "and one more"));
    let mut last = None;
    while let Some(line) = reader.next(Some(Duration::ZERO)).unwrap() {
        last = Some(line);
    }
    let last = last.unwrap();
    assert_eq!((last.message.as_str(), last.dropped), ("after", 7));
    assert_eq!(reader.dropped(), 8, "the last one found it full again");
    // What was lost is told with one line, and not with all that come.
    for (message, lost) in [("later", 1), ("and later", 0)] {
        reader.0.push(line(LogLevel::Info, message));
        assert_eq!(reader.next(SOON).unwrap().unwrap().dropped, lost, "{message}");
    }
}

#[cfg(unix)]
#[test]
fn readable_while_a_line_waits_and_after_the_end() {
    let reader = unlisted(LogLevel::Info);
    assert!(!readable(&reader));
    assert!(reader.next(Some(Duration::ZERO)).unwrap().is_none());
    reader.0.push(line(LogLevel::Info, "a"));
    reader.0.push(line(LogLevel::Info, "b"));
    for message in ["a", "b"] {
        assert!(readable(&reader));
        assert_eq!(reader.next(SOON).unwrap().unwrap().message, message);
    }
    assert!(!readable(&reader));
    reader.0.push(line(LogLevel::Info, "c"));
    reader.close();
    reader.0.push(line(LogLevel::Info, "too late"));
    assert_eq!(reader.next(SOON).unwrap().unwrap().message, "c");
    assert!(readable(&reader));
    assert_eq!(reader.next(None).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn who_waits_is_woken_by_a_line_and_by_the_end() {
    let reader = unlisted(LogLevel::Info);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let first = reader.next(None).unwrap().unwrap();
            (first.message, reader.next(None).unwrap_err().kind())
        });
        reader.0.push(line(LogLevel::Info, "one"));
        while !reader.0.lock().lines.is_empty() {
            std::thread::yield_now();
        }
        reader.close();
        assert_eq!(waiting.join().unwrap(), ("one".into(), ErrorKind::Closed));
    });
}

#[test]
fn nothing_is_longer_than_may_lie_about() {
    let mut line = Log::new(LogLevel::Warn, "ottla::test");
    line.say(format_args!("{}", "ä".repeat(MAX_TEXT)));
    line.field("broker", format_args!("{}", "x".repeat(MAX_TEXT + 1)));
    assert_eq!(line.message.chars().count(), MAX_TEXT / 2 + 1);
    assert!(line.fields[0].1.len() <= MAX_TEXT + '…'.len_utf8());
    line.field("short", format_args!("{}", "x".repeat(MAX_TEXT)));
    assert_eq!(line.fields[1].1.len(), MAX_TEXT);
}

#[test]
fn levels_have_the_numbers_of_the_c_interface() {
    for (i, name) in ["error", "warn", "info", "debug", "trace"].iter().enumerate() {
        let level = LogLevel::from_number(i as i32 + 1).unwrap();
        assert_eq!((level as i32, level.as_str()), (i as i32 + 1, *name));
    }
    assert!(LogLevel::from_number(0).is_none() && LogLevel::from_number(6).is_none());
}

/// Lines that nobody wants any more are not put together.
#[test]
fn what_a_closed_reader_wanted_is_wanted_no_more() {
    let reader = LogReader::open(LogLevel::Trace).unwrap();
    reader.close();
    // Held, so that no other reader comes or goes.
    let others = readers().unwrap();
    let levels = others.iter().filter_map(Weak::upgrade).map(|queue| queue.least as u8);
    assert_eq!(LEVEL.load(Ordering::Relaxed), levels.max().unwrap_or(0));
}

/// Also one that no line ever came for.
#[test]
fn the_end_wakes_who_waits_for_the_first_line() {
    let reader = Arc::new(unlisted(LogLevel::Info));
    let (ended, end) = std::sync::mpsc::channel();
    let waiting = Arc::clone(&reader);
    std::thread::spawn(move || {
        let _ = ended.send(());
        assert_eq!(waiting.next(None).unwrap_err().kind(), ErrorKind::Closed);
        let _ = ended.send(());
    });
    end.recv().unwrap();
    // It is in `next`, or is about to be; mostly it waits by now.
    for _ in 0..10_000 {
        std::thread::yield_now();
    }
    reader.close();
    end.recv_timeout(Duration::from_secs(30)).expect("an end");
}

/// On a list of its own: that of the process is for all tests.
#[test]
fn one_reader_too_many_is_refused_until_another_is_gone() {
    let (mut list, mut open) = (Vec::new(), Vec::new());
    for _ in 0..MAX_READERS {
        let reader = unlisted(LogLevel::Warn);
        enlist(&mut list, &reader.0).unwrap();
        open.push(reader);
    }
    let more = unlisted(LogLevel::Warn);
    let error = enlist(&mut list, &more.0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert_eq!(list.len(), MAX_READERS);
    open.pop();
    enlist(&mut list, &more.0).unwrap();
}
