//! Arguments, variables, streams, clocks, polling, randomness.

use std::{collections::HashMap, io::Read};

use crate::{Case, abi::*};

pub(crate) const CASES: &[Case] = &[
    ("args_none", args_none),
    ("args_some", args_some),
    ("big_random_buf", big_random_buf),
    ("clock_res_get", res),
    ("clock_time_get", time),
    ("env_none", env_none),
    ("env_some", env_some),
    ("poll_oneoff_clock", poll_oneoff_clock),
    ("poll_oneoff_stdio", poll_oneoff_stdio),
    ("sched_yield", yields),
    ("stdin_empty", stdin_empty),
    ("stdin_some", stdin_some),
];

fn args_none() {
    assert_eq!(std::env::args().collect::<Vec<_>>(), ["task", "args_none"]);
}

fn args_some() {
    assert_eq!(std::env::args().collect::<Vec<_>>(), ["task", "args_some", "", "two words", "ünïcødé", "--", "=\"'\\"]);
}

fn env_none() {
    assert_eq!(std::env::vars().count(), 0);
}

fn env_some() {
    let vars: HashMap<_, _> = std::env::vars().collect();
    let expected = [("A", ""), ("b", "x=y=z"), ("ünï", "cødé"), ("SPACE", " a b ")];
    assert_eq!(vars, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
}

fn big_random_buf() {
    let mut buffer = vec![0; 1 << 20];
    assert_eq!(random(&mut buffer), Ok(()));
    assert!(buffer.chunks(64).all(|part| part.iter().any(|byte| *byte != 0)));
    let mut again = vec![0; 1 << 20];
    assert_eq!(random(&mut again), Ok(()));
    assert!(buffer != again, "the stream goes on");
    assert_eq!(random(&mut vec![0; (16 << 20) + 1]), Err(wasi::ERRNO_INVAL));
}

const CLOCKS: [wasi::Clockid; 4] = [
    wasi::CLOCKID_REALTIME,
    wasi::CLOCKID_MONOTONIC,
    wasi::CLOCKID_PROCESS_CPUTIME_ID,
    wasi::CLOCKID_THREAD_CPUTIME_ID,
];

fn res() {
    CLOCKS.iter().for_each(|clock| assert_eq!(clock_res_get(*clock), Ok(1)));
}

fn time() {
    for clock in CLOCKS {
        let first = clock_time_get(clock, 0).unwrap();
        let second = clock_time_get(clock, 1 << 40).unwrap();
        assert!(first < second, "it moves with every call");
    }
    let real = clock_time_get(wasi::CLOCKID_REALTIME, 0).unwrap();
    // 2020 has just begun.
    assert!((1_577_836_800_000_000_000..1_577_836_801_000_000_000).contains(&real), "{real}");
}

fn poll_oneoff_clock() {
    let now = || clock_time_get(wasi::CLOCKID_MONOTONIC, 0).unwrap();
    let sleep = |timeout_ns, flags| Wait::Clock { clock: wasi::CLOCKID_MONOTONIC, timeout_ns, flags };
    let timed = |index| Event { index, errno: wasi::ERRNO_SUCCESS, kind: 0, bytes: 0 };
    let start = now();
    assert_eq!(poll(&[sleep(3_600_000_000_000, 0)]), Ok(vec![timed(0)]));
    assert!((3_600_000_000_000..3_600_100_000_000).contains(&(now() - start)));
    // The shortest wait ends it, and what has passed by then is told too.
    assert_eq!(poll(&[sleep(500, 0), sleep(100, 0), sleep(100, 0)]), Ok(vec![timed(1), timed(2)]));
    let moment = now() + 1_000_000;
    assert_eq!(poll(&[sleep(moment, wasi::SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME)]), Ok(vec![timed(0)]));
    assert!(now() >= moment);
    assert_eq!(poll(&[sleep(1, wasi::SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME)]), Ok(vec![timed(0)]), "it is past");
    assert_eq!(poll(&[]), Err(wasi::ERRNO_INVAL));
}

fn poll_oneoff_stdio() {
    let clock = Wait::Clock { clock: wasi::CLOCKID_MONOTONIC, timeout_ns: 200_000_000, flags: 0 };
    let event = |index, kind, bytes| Event { index, errno: wasi::ERRNO_SUCCESS, kind, bytes };
    let start = clock_time_get(wasi::CLOCKID_MONOTONIC, 0).unwrap();
    // Five bytes wait on standard input.
    assert_eq!(poll(&[clock, Wait::Read(0)]), Ok(vec![event(1, 1, 5)]));
    assert_eq!(poll(&[Wait::Write(1), Wait::Write(2), clock]), Ok(vec![event(0, 2, 0), event(1, 2, 0)]));
    let file = create(scratch(), "file");
    assert_eq!(write(file, b"abc"), Ok(3));
    assert_eq!(fd_seek(file, 1, wasi::WHENCE_SET), Ok(1));
    assert_eq!(poll(&[Wait::Read(file)]), Ok(vec![event(0, 1, 2)]));
    assert_eq!(poll(&[Wait::Read(99)]), Ok(vec![Event { errno: wasi::ERRNO_BADF, ..event(0, 1, 0) }]));
    // Nobody has slept.
    assert!(clock_time_get(wasi::CLOCKID_MONOTONIC, 0).unwrap() - start < 200_000_000);
}

fn yields() {
    assert_eq!(sched_yield(), Ok(()));
}

fn stdin_empty() {
    let mut buffer = [0; 4];
    assert_eq!((read(0, &mut buffer), read(0, &mut buffer)), (Ok(0), Ok(0)));
    assert_eq!(write(0, b"x"), Err(wasi::ERRNO_BADF));
    assert_eq!(read(1, &mut buffer), Err(wasi::ERRNO_BADF));
    assert_eq!((fd_close(0), read(0, &mut buffer)), (Ok(()), Err(wasi::ERRNO_BADF)));
}

fn stdin_some() {
    let mut buffer = [0; 2];
    assert_eq!((read(0, &mut buffer), &buffer), (Ok(2), b"he"));
    assert_eq!(read(0, &mut []), Ok(0));
    let mut rest = String::new();
    std::io::stdin().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "llo");
    assert_eq!(read(0, &mut buffer), Ok(0));
}
