//! Several processes on one file.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use es_framework::ExpectedVersion;
use es_sqlite::{Durability, SqliteStore};

use crate::support::{all, child, event, folder, id, in_child, say, texts, with_id, write};

/// Not a test when it runs among all others: the process that the tests below start and kill. Writes one event after
/// the other and prints a line after each was acknowledged.
#[tokio::test]
async fn a_writing_process() {
    let Some(path) = in_child() else { return };
    let store = SqliteStore::open(&path).await.unwrap();
    let stream = store.stream(id(&format!("p-{}", std::process::id())));
    for n in 0.. {
        stream.write(with_id(&n.to_string(), &n.to_string()), ExpectedVersion::Any).await.unwrap();
        say(&format!("{n}"));
    }
}

/// The process of [`four_processes_that_write_back_to_back_share_the_store`].
#[tokio::test]
async fn a_process_that_writes_back_to_back() {
    let Some(path) = in_child() else { return };
    let store = SqliteStore::builder().durability(Durability::Normal).open(&path).await.unwrap();
    let stream = store.stream(id(&format!("p-{}", std::process::id())));
    say("ready");
    let (start, mut waits) = (Instant::now(), Vec::new());
    while start.elapsed() < Duration::from_secs(3) {
        let before = Instant::now();
        stream.write(event("x"), ExpectedVersion::Any).await.unwrap();
        waits.push(before.elapsed());
    }
    waits.sort();
    let at = |percent: usize| waits[waits.len() * percent / 100].as_micros();
    say(&format!("{} {} {} {}", waits.len(), at(50), at(99), waits.last().unwrap().as_micros()));
    store.close().await.unwrap();
}

/// The process of [`a_write_of_another_process_is_noticed_within_the_interval`].
#[tokio::test]
async fn a_process_that_writes_now_and_then() {
    let Some(path) = in_child() else { return };
    let store = SqliteStore::builder().durability(Durability::Normal).open(&path).await.unwrap();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(11)).await;
        let now = store.now().as_micros().to_string();
        write(&store, "w-1", &now).await;
    }
    store.close().await.unwrap();
}

fn said(child: &mut std::process::Child) -> impl Iterator<Item = String> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("> ").map(str::to_owned))
}

#[tokio::test]
async fn what_a_killed_process_was_told_is_written_is_there_once() {
    let (_folder, path) = folder();
    let mut acknowledged = 0;
    let mut events = 0;
    for round in 0..20_u64 {
        let mut child = child("processes::a_writing_process", &path);
        let pid = child.id();
        let lines = said(&mut child);
        let mut last = None;
        let mut killer = Some(child);
        let until = Instant::now() + Duration::from_millis(20 + round * 7 % 90);
        for line in lines {
            last = Some(line.parse::<usize>().unwrap());
            if Instant::now() > until
                && let Some(mut child) = killer.take()
            {
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
        let told = last.unwrap() + 1;
        acknowledged += told;
        let store = SqliteStore::open(&path).await.unwrap();
        let stream = store.stream(id(&format!("p-{pid}")));
        let written = stream.read().collect().await.unwrap();
        // One more may have been written that was never reported.
        assert!(written.len() == told || written.len() == told + 1, "{} of {told}", written.len());
        let numbers: Vec<String> = (0..written.len()).map(|n| n.to_string()).collect();
        assert_eq!(texts(&written), numbers);
        // And a retry of the unacknowledged events is recognised.
        let retry: Vec<_> = (0..told).map(|n| with_id(&n.to_string(), &n.to_string())).collect();
        assert!(stream.write(retry, ExpectedVersion::NoStream).await.unwrap().was_known());
        events += written.len();
        assert_eq!(all(&store).await.len(), events);
        store.close().await.unwrap();
    }
    assert!(acknowledged > 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn four_processes_that_write_back_to_back_share_the_store() {
    let (_folder, path) = folder();
    let mut children: Vec<_> = (0..4).map(|_| child("processes::a_process_that_writes_back_to_back", &path)).collect();
    let mut written = 0;
    for child in &mut children {
        let last = said(child).last().unwrap();
        let numbers: Vec<usize> = last.split(' ').map(|number| number.parse().unwrap()).collect();
        say(&format!("{} writes, p50 {} µs, p99 {} µs, worst {} µs", numbers[0], numbers[1], numbers[2], numbers[3]));
        // The target is 50 ms if each process has a core; here they share two with all other tests.
        assert!(numbers[2] < 250_000, "p99 {} µs", numbers[2]);
        assert!(numbers[0] > 20, "starved: {} writes", numbers[0]);
        written += numbers[0];
        assert!(child.wait().unwrap().success());
    }
    let store = SqliteStore::open(&path).await.unwrap();
    let events = all(&store).await;
    assert_eq!(events.len(), written);
    assert!(events.iter().zip(1..).all(|(event, n)| event.position == n));
    store.close().await.unwrap();
    assert_eq!(crate::support::files(&path), ["store.db"]);
}

#[tokio::test]
async fn a_write_of_another_process_is_noticed_within_the_interval() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let mut watch = store.all().watch().await.unwrap();
    let mut child = child("processes::a_process_that_writes_now_and_then", &path);
    let mut waits = Vec::new();
    for n in 1..=100 {
        let event = watch.next().await.unwrap().unwrap();
        assert_eq!(event.position, n);
        waits.push(store.now().since(event.time));
    }
    waits.sort();
    say(&format!("noticed after p50 {:?}, p99 {:?}, worst {:?}", waits[50], waits[98], waits[99]));
    assert!(waits[50] < Duration::from_millis(50));
    assert!(child.wait().unwrap().success());
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_handles_may_make_the_same_store_at_once() {
    for _ in 0..10 {
        let (_folder, path) = folder();
        let opening: Vec<_> = (0..6).map(|_| tokio::spawn(SqliteStore::builder().open(path.clone()))).collect();
        let mut stores = Vec::new();
        for store in opening {
            stores.push(store.await.unwrap().unwrap());
        }
        assert!(stores.iter().all(|store| store.id() == stores[0].id()));
        for store in &stores {
            write(store, "s-1", "x").await;
        }
        assert_eq!(all(&stores[0]).await.len(), 6);
        for store in stores {
            store.close().await.unwrap();
        }
    }
}
