//! Queues, cancelled calls, paused readers, idleness.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use es_framework::{Append, AppendError, ErrorKind, ExpectedVersion};
use es_sqlite::SqliteStore;

use crate::support::{all, event, folder, id, sql, with_id, write};

#[tokio::test]
async fn a_full_queue_fails_callers_who_asked_for_it_and_makes_others_wait() {
    let (_folder, path) = folder();
    let store = SqliteStore::builder().queue(2, 1 << 20).open(&path).await.unwrap();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let holding = tokio::spawn({
        let store = store.clone();
        async move { store.transact(move |_| held.recv()).await }
    });
    tokio::task::yield_now().await;
    let waiting: Vec<_> = (0..5)
        .map(|n| {
            let stream = store.stream(id(&format!("w-{n}")));
            tokio::spawn(async move { stream.write(event("x"), ExpectedVersion::NoStream).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let append = Append::to(id("f-1"), ExpectedVersion::Any, event("x")).fail_when_full();
    assert!(matches!(store.append(append.clone()).await, Err(AppendError::Overloaded)));
    hold.send(()).unwrap();
    holding.await.unwrap().unwrap();
    for write in waiting {
        write.await.unwrap().unwrap();
    }
    store.append(append).await.unwrap();
    assert_eq!(all(&store).await.len(), 6);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_write_that_is_dropped_after_any_poll_is_whole_or_never_was() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    for polls in 0..4 {
        let stream = store.stream(id(&format!("s-{polls}")));
        let events = || vec![with_id("1", "1"), with_id("2", "2")];
        {
            let mut write = pin!(stream.write(events(), ExpectedVersion::NoStream));
            for _ in 0..polls {
                if write.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        // Whatever happened to it, it is over once a later write is, and its retry succeeds.
        write(&store, "other", "x").await;
        let version = stream.version().await.unwrap();
        assert!(version == if polls == 0 { 0 } else { 2 }, "{polls} polls, version {version}");
        stream.write(events(), ExpectedVersion::NoStream).await.unwrap();
        assert_eq!(stream.version().await.unwrap(), 2);
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_thousand_paused_reads_hold_up_neither_writes_nor_reads_nor_closing() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let many: Vec<_> = (0..100).map(|n| event(n.to_string())).collect();
    store.stream(id("s-1")).write(many, ExpectedVersion::Any).await.unwrap();
    let mut paused = Vec::new();
    for _ in 0..1_000 {
        let mut reading = store.all().read().page(10, 1 << 20).stream();
        assert_eq!(reading.next().await.unwrap().unwrap().position, 1);
        paused.push(reading);
    }
    write(&store, "s-1", "x").await;
    assert_eq!(all(&store).await.len(), 101);
    let first = &mut paused[0];
    let mut count = 1;
    while let Some(event) = first.next().await {
        event.unwrap();
        count += 1;
    }
    assert_eq!(count, 100);
    tokio::time::timeout(Duration::from_secs(30), store.close()).await.unwrap().unwrap();
}

/// The CPU time used by the threads of this process.
#[cfg(target_os = "linux")]
fn processor_time() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let of_thread = |folder: std::path::PathBuf| {
        // A thread may end in between.
        let stat = std::fs::read_to_string(folder.join("schedstat")).unwrap_or_default();
        stat.split_whitespace().next().map_or(0, |nanos| nanos.parse().unwrap())
    };
    Duration::from_nanos(threads.map(|thread| of_thread(thread.unwrap().path())).sum())
}

/// Run as a process of its own, where nothing else uses CPU time.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_idle_process() {
    let Some(path) = crate::support::in_child() else { return };
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "x").await;
    let watch = store.all().watch().await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    // The best of several: on a busy machine the same work takes more time than it needs.
    let mut least = Duration::MAX;
    for _ in 0..4 {
        let before = processor_time();
        tokio::time::sleep(Duration::from_secs(1)).await;
        least = least.min(processor_time().saturating_sub(before));
    }
    assert!(Duration::ZERO < least, "the poller ran, or nothing was measured");
    // The benches measure the actual cost; here it just must not be a busy loop, which would take the whole second.
    assert!(least < Duration::from_millis(20), "{least:?} of a second");
    drop(watch);
    store.close().await.unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_idle_store_with_a_watcher_uses_no_processor_to_speak_of() {
    let (_folder, path) = folder();
    let mut child = crate::support::child("load::an_idle_process", &path);
    assert!(child.wait().unwrap().success());
}

/// The log is read once a second anyway: forty events that wait for that would take forty seconds.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn commits_of_another_handle_are_noticed_long_before_a_poll() {
    let (_folder, path) = folder();
    let slowly = SqliteStore::builder().poll_interval(Duration::from_secs(3_600));
    let ours = slowly.clone().open(&path).await.unwrap();
    let theirs = SqliteStore::open(&path).await.unwrap();
    let mut watch = ours.all().watch().await.unwrap();
    let begun = std::time::Instant::now();
    for n in 0..40 {
        write(&theirs, "s-1", &n.to_string()).await;
        let noticed = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap();
        assert_eq!(noticed.unwrap().unwrap().version.get(), n + 1);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    drop(watch);
    theirs.close().await.unwrap();
    ours.close().await.unwrap();
}

#[tokio::test]
async fn a_read_that_is_given_up_before_it_began_is_never_run() {
    let (_folder, path) = folder();
    let store = SqliteStore::builder().readers(1).open(&path).await.unwrap();
    let model = store.read_model();
    let (begin, begun) = std::sync::mpsc::channel::<()>();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let holding = tokio::spawn({
        let model = model.clone();
        async move {
            let held = model.query(move |_| {
                begin.send(()).unwrap();
                held.recv().unwrap();
                Ok(())
            });
            held.await.unwrap();
        }
    });
    tokio::task::spawn_blocking(move || begun.recv().unwrap()).await.unwrap();
    // The waiting reads hold its clones, so they also show how many there are.
    let runs = Arc::new(AtomicUsize::new(0));
    for _ in 0..1_000 {
        let counted = Arc::clone(&runs);
        let mut read = pin!(model.query(move |_| Ok(counted.fetch_add(1, Ordering::Relaxed))));
        assert!(read.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert_eq!(Arc::strong_count(&runs), 1);
    hold.send(()).unwrap();
    holding.await.unwrap();
    assert_eq!(all(&store).await.len(), 0);
    assert_eq!(runs.load(Ordering::Relaxed), 0);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_watch_of_a_store_that_cannot_be_looked_at_ends_with_the_error() {
    let time = "UPDATE es_event SET time = 'x' WHERE position = 1";
    for (damage, kind) in [("PRAGMA user_version = 3", ErrorKind::Caller), (time, ErrorKind::Data)] {
        let (_folder, path) = folder();
        let store = SqliteStore::open(&path).await.unwrap();
        write(&store, "s-1", "a").await;
        let mut watch = store.all().watch().await.unwrap();
        // Idle, and fed from memory.
        assert!(tokio::time::timeout(Duration::from_millis(50), watch.next()).await.is_err());
        sql(&path).execute_batch(damage).unwrap();
        let told = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap();
        assert_eq!(told.unwrap().unwrap_err().kind(), kind, "{damage}");
        assert!(watch.next().await.is_none());
        store.close().await.unwrap();
    }
}

/// The newest event is damaged, so no one can tell what another process adds; the events of the stream can still be
/// read.
#[tokio::test]
async fn a_watch_whose_own_stream_can_be_read_goes_on_where_the_log_cannot_be_looked_at() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "a").await;
    write(&store, "s-2", "x").await;
    let mut watch = store.stream(id("s-1")).watch().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), watch.next()).await.is_err());
    let time = "UPDATE es_event SET time = 'x' WHERE position = 2";
    let other = sql(&path);
    other.execute_batch(time).unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), watch.next()).await.is_err());
    other.execute_batch("UPDATE es_event SET time = 0 WHERE position = 2").unwrap();
    drop(other);
    write(&store, "s-1", "b").await;
    let next = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap();
    assert_eq!(&next.unwrap().unwrap().payload[..], b"b");
    store.close().await.unwrap();
}

/// In memory there is only one connection, and pages share the queue with the writes: many of them are requested ahead
/// by readers that may never continue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_reads_of_a_store_in_memory_keep_no_place_from_writes() {
    let store = SqliteStore::builder().queue(4, 64 << 10).in_memory().await.unwrap();
    let many: Vec<_> = (0..300).map(|n| event(n.to_string())).collect();
    store.stream(id("s-1")).write(many, ExpectedVersion::Any).await.unwrap();
    let readers = (0..16).map(|reader| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut reading = store.stream(id("s-1")).read().page(10, 1 << 20).stream();
            while let Some(read) = reading.next().await {
                read.unwrap();
                write(&store, &format!("t-{reader}"), "y").await;
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    let all = async {
        for reader in readers {
            reader.await.unwrap();
        }
        let large = event("x".repeat(64 << 10));
        store.stream(id("l-1")).write(large, ExpectedVersion::Any).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("nobody waits for a place that a reader keeps");
}

/// A service keeps a list of writes, polls each once when it comes in and returns to them much later. The queue's room
/// was given to the first that waited, and was held by a future that nobody polled, so every other writer of the store
/// waited forever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a9_writes_that_are_kept_unpolled_keep_no_room_from_others() {
    let (_folder, path) = folder();
    for in_memory in [false, true] {
        let builder = SqliteStore::builder().queue(4_096, 1 << 20);
        let store = if in_memory { builder.in_memory().await.unwrap() } else { builder.open(&path).await.unwrap() };
        // Ten of the kept ones fill the queue several times over, as ten of 15 MiB do with the default bounds.
        let mut kept: Vec<_> = (0..10)
            .map(|n| {
                let stream = store.stream(id(&format!("kept-{n}")));
                Box::pin(async move { stream.write(event("x".repeat(240 << 10)), ExpectedVersion::NoStream).await })
            })
            .collect();
        for write in &mut kept {
            assert!(write.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        // The same goes for snapshots and cells, and for jobs that wait for a turn alone.
        let name = es_framework::CellKey::new("kept").unwrap();
        let mut cell = Box::pin(store.set_cell(&name, 0, Some(vec![0; 900 << 10].into())));
        assert!(cell.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let mut alone = Box::pin(store.transact(|_| Ok::<_, std::convert::Infallible>(())));
        assert!(alone.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let others = (0..4).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..250 {
                    write(&store, &format!("other-{writer}"), &n.to_string()).await;
                }
            })
        });
        let others: Vec<_> = others.collect();
        let all_of_them = async {
            for other in others {
                other.await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all_of_them).await.expect("others get on");
        for write in kept {
            assert_eq!(write.await.unwrap().version(), 1);
        }
        cell.await.unwrap();
        alone.await.unwrap();
        assert_eq!(all(&store).await.len(), 1_010);
        store.close().await.unwrap();
    }
}

/// A caller that gives up waiting for room leaves nothing in the store and nothing in the queue.
#[tokio::test]
async fn a10_a_write_that_gives_up_waiting_for_room_never_was_and_frees_all_it_had() {
    let (_folder, path) = folder();
    let store = SqliteStore::builder().queue(8, 64 << 10).open(&path).await.unwrap();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let mut holding = Box::pin(store.transact(move |_| held.recv()));
    assert!(holding.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let append = |n: u32| Append::to(id(&format!("s-{n}")), ExpectedVersion::NoStream, event("x".repeat(40 << 10)));
    let mut writes: Vec<_> = (0..10).map(|n| Box::pin(store.append(append(n)))).collect();
    for write in &mut writes {
        assert!(write.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    let small = || Append::to(id("small"), ExpectedVersion::Any, event("x")).fail_when_full();
    assert!(matches!(store.append(small()).await, Err(AppendError::Overloaded)), "nobody passes those who wait");
    let mut last = writes.pop().unwrap();
    // The first is in the queue and runs to completion; the others wait for room.
    drop(writes);
    assert!(last.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    hold.send(()).unwrap();
    holding.await.unwrap();
    last.await.unwrap();
    store.append(small()).await.unwrap();
    let written: Vec<_> = all(&store).await.iter().map(|event| event.stream.to_string()).collect();
    assert_eq!(written, ["s-0", "s-9", "small"]);
    store.close().await.unwrap();
}
