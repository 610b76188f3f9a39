use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::*;

const LIMITS: CoalescerLimits = CoalescerLimits { keys_a_fetch: 10, fetches: 2 };

/// A database that answers each key with its double, one fetch for each permit, and records the requests.
#[derive(Clone)]
struct LoaderParts {
    asked: Arc<Mutex<Vec<Vec<u32>>>>,
    permits: Arc<Semaphore>,
}

impl LoaderParts {
    fn new(permits: usize) -> Self {
        Self { asked: Arc::default(), permits: Arc::new(Semaphore::new(permits)) }
    }

    fn gathered(&self, bounds: CoalescerLimits) -> Coalescer<u32, u32> {
        let desk = self.clone();
        Coalescer::new(bounds, move |keys| {
            let desk = desk.clone();
            Box::pin(async move {
                desk.asked.lock().unwrap().push(keys.clone());
                desk.permits.acquire().await.unwrap().forget();
                if keys.contains(&13) {
                    return Err(StoreError::Unavailable("thirteen".into()));
                }
                assert!(!keys.contains(&99), "a fetch that panics");
                Ok(keys.into_iter().filter(|key| *key != 77).map(|key| key * 2).collect())
            })
        })
    }

    fn sizes(&self) -> Vec<usize> {
        self.asked.lock().unwrap().iter().map(Vec::len).collect()
    }
}

/// Lets all other tasks run as far as they can.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

fn is_away(answer: &Answer<u32>) -> bool {
    matches!(answer, Err(StoreError::Unavailable(_)))
}

#[tokio::test(start_paused = true)]
async fn what_gathers_while_a_fetch_is_under_way_goes_together_and_within_the_bounds() {
    let desk = LoaderParts::new(0);
    let gathered = desk.gathered(LIMITS);
    let asking = join_all((20..48).map(|key| gathered.get(key)));
    let releasing = async {
        settle().await;
        assert_eq!(desk.sizes(), [1], "one fetch, as long as it is swift");
        desk.permits.add_permits(100);
    };
    let (answers, ()) = tokio::join!(asking, releasing);
    let answers: Vec<u32> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, (20..48).map(|key| key * 2).collect::<Vec<_>>(), "each got its own answer");
    assert_eq!(desk.sizes(), [1, 10, 10, 7]);
    assert_eq!(desk.asked.lock().unwrap()[1], (21..31).collect::<Vec<_>>(), "first come, first fetched");
}

#[tokio::test(start_paused = true)]
async fn a_crowd_and_whoever_comes_while_a_fetch_is_slow_go_beside_it() {
    let desk = LoaderParts::new(0);
    let gathered = desk.gathered(LIMITS);
    let crowd = 1 + u32::try_from(CROWD).unwrap();
    let asking = join_all((1_000..1_000 + crowd).map(|key| gathered.get(key)));
    let releasing = async {
        settle().await;
        assert_eq!(desk.sizes(), [1, 10], "a crowd is worth a second fetch");
        tokio::time::sleep(SWIFT * 2).await;
        assert_eq!(desk.sizes(), [1, 10], "and there are no more than two");
        desk.permits.add_permits(1_000);
    };
    tokio::join!(asking, releasing);
    let desk = LoaderParts::new(0);
    let gathered = desk.gathered(LIMITS);
    let slow = gathered.get(1);
    let late = async {
        tokio::time::sleep(SWIFT * 2).await;
        let second = gathered.get(2);
        let released = async {
            settle().await;
            assert_eq!(desk.sizes(), [1, 1], "it does not wait for the slow one");
            desk.permits.add_permits(2);
        };
        tokio::join!(second, released).0
    };
    let (slow, late) = tokio::join!(slow, late);
    assert_eq!((slow.ok(), late.ok()), (Some(2), Some(4)));
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_the_same_shares_the_next_answer_and_never_one_that_is_under_way() {
    let desk = LoaderParts::new(0);
    let gathered = desk.gathered(CoalescerLimits { fetches: 1, ..LIMITS });
    let asking = join_all((0..5).map(|_| gathered.get(7)));
    let releasing = async {
        settle().await;
        assert_eq!(desk.sizes(), [1]);
        desk.permits.add_permits(2);
    };
    let (answers, ()) = tokio::join!(asking, releasing);
    assert!(answers.into_iter().all(|answer| answer.unwrap() == 14));
    assert_eq!(desk.sizes(), [1, 1], "four of five shared the second fetch");
    desk.permits.add_permits(1);
    gathered.get(7).await.unwrap();
    assert_eq!(desk.sizes(), [1, 1, 1], "nothing is remembered here");
}

#[tokio::test(start_paused = true)]
async fn an_error_goes_to_all_who_wait_for_it_and_to_nobody_else() {
    let desk = LoaderParts::new(0);
    let gathered = desk.gathered(CoalescerLimits { fetches: 1, ..LIMITS });
    let asking = join_all([1, 13, 13, 2].map(|key| gathered.get(key)));
    let releasing = async {
        settle().await;
        desk.permits.add_permits(100);
    };
    let (answers, ()) = tokio::join!(asking, releasing);
    assert_eq!(answers[0].as_ref().ok(), Some(&2));
    assert!(answers[1..].iter().all(is_away), "{answers:?}");
    assert_eq!(gathered.get(2).await.ok(), Some(4), "the error is remembered by nobody");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_in_a_row_behind_fetches_that_are_stuck() {
    let desk = LoaderParts::new(0);
    let gathered = desk.gathered(LIMITS);
    let since = Instant::now();
    let answers = join_all((0..50).map(|key| gathered.get(key))).await;
    assert!(answers.iter().all(is_away));
    assert_eq!(since.elapsed(), PATIENCE);
    desk.permits.add_permits(100);
    assert_eq!(gathered.get(100).await.ok(), Some(200), "and the places are free again");
    let asked = desk.asked.lock().unwrap().concat();
    assert_eq!(asked, [0, 100], "nobody fetches for those who left");
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_waiting_cuts_no_fetch_short() {
    let desk = LoaderParts::new(0);
    let gathered = desk.gathered(CoalescerLimits { fetches: 1, ..LIMITS });
    assert!(timeout(Duration::from_millis(10), gathered.get(1)).await.is_err());
    desk.permits.add_permits(1);
    settle().await;
    assert_eq!(desk.permits.available_permits(), 0, "the fetch went on to its end");
    desk.permits.add_permits(1);
    assert_eq!(gathered.get(2).await.ok(), Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_panics_or_miscounts_is_an_error_and_gives_its_place_back() {
    let desk = LoaderParts::new(100);
    let gathered = desk.gathered(CoalescerLimits { fetches: 1, ..LIMITS });
    for broken in [99, 77] {
        assert!(matches!(gathered.get(broken).await, Err(StoreError::Unexpected(_))), "{broken}");
    }
    assert_eq!(gathered.get(3).await.ok(), Some(6));
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_read_fails_alone() {
    let desk = LoaderParts::new(1);
    let gathered = desk.gathered(CoalescerLimits { fetches: 1, ..LIMITS });
    let (first, others) = (gathered.get(1), join_all([2, 3, 77, 4, 5].map(|key| gathered.get(key))));
    let releasing = async {
        settle().await;
        desk.permits.add_permits(100);
    };
    let (first, others, ()) = tokio::join!(first, others, releasing);
    assert_eq!(first.ok(), Some(2));
    let read: Vec<_> = others.into_iter().map(Result::ok).collect();
    assert_eq!(read, [Some(4), Some(6), None, Some(8), Some(10)]);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_those_who_wait_is_bounded() {
    let desk = LoaderParts::new(0);
    let gathered = desk.gathered(CoalescerLimits { fetches: 1, ..LIMITS });
    let first = 1 + u32::try_from(WAITING_AT_MOST).unwrap();
    let asking = join_all((0..first).map(|key| gathered.get(key)));
    let one_more = async {
        settle().await;
        let since = Instant::now();
        assert!(is_away(&gathered.get(first).await));
        assert_eq!(since.elapsed(), Duration::ZERO, "it is told at once");
    };
    tokio::join!(asking, one_more);
    desk.permits.add_permits(usize::try_from(first).unwrap());
    assert_eq!(gathered.get(first).await.ok(), Some(first * 2), "those who left make room");
}
