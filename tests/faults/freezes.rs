//! The database freezes: its connections stay open, but it does not respond.

use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::TestApp;

use crate::clusters::OwnCluster;
use crate::writers::{Writers, assert_honest, assert_kept, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_freezes_is_told_honestly_and_found_again() {
    let cluster = OwnCluster::ephemeral().await;
    let app = Arc::new(TestApp::with(|settings| cluster.serve(settings)).await);
    let users = [app.signup("one@example.com").await, app.signup("two@example.com").await];
    let writers = Writers::start(&app, &users);
    writers.write_more(10).await;

    let frozen = cluster.freeze();
    let frozen_at = Instant::now();
    tokio::time::sleep(Duration::from_secs(4)).await;
    app.get("/readyz").send().await.expect_status(503);
    let thawed_at = Instant::now();
    drop(frozen);

    writers.write_more(10).await;
    within(Duration::from_secs(3), "readiness", async || app.get("/readyz").send().await.status == 200).await;
    for (user, told) in writers.stop().await {
        for answer in &told {
            assert_honest(answer);
            let was_frozen = answer.sent > frozen_at && answer.sent + answer.took < thawed_at;
            assert!(!(was_frozen && answer.status == 200), "{answer:?}");
        }
        assert!(told.iter().any(|answer| answer.status == 503), "{told:?}");
        assert_eq!(told.last().unwrap().status, 200, "at the end all is well");
        assert_kept(&told, &cluster.text(&format!("SELECT name::text FROM users WHERE id = '{}'", user.id)).await);
    }
    drop(app);
    cluster.stop().await;
}
