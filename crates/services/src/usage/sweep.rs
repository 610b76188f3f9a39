//! Sweep: releases reservations whose time is over, and deletes what was kept long enough, a bounded number at once.

use domain::usage::HoldId;
use domain::users::UserId;
use ports::store::{Scope, StoreError};
use tokio::time::Instant;
use tracing::warn;

use super::commands::ExpireReservationCommand;
use super::group_commit::{PATIENCE, UsageService, answer};

/// How many reservations one sweep releases at most: they take the places of waiting commands.
const EXPIRED_AT_ONCE: u64 = 500;

/// How many stored outcomes (of each partition of their table) or ended reservations one sweep deletes at most.
const DELETED_AT_ONCE: u64 = 5_000;

impl UsageService {
    /// Deletes outcomes that were kept long enough; returns how many.
    pub async fn sweep_outcomes(&self) -> Result<u64, StoreError> {
        let mut work = self.shared.store.begin(Scope::SERVICE).await?;
        let swept = work.counters().delete_outcomes(self.shared.keep, DELETED_AT_ONCE).await?;
        work.commit().await?;
        Ok(swept)
    }

    /// Deletes reservations that ended long enough ago; returns how many.
    pub async fn sweep_reservations(&self) -> Result<u64, StoreError> {
        let mut work = self.shared.store.begin(Scope::SERVICE).await?;
        let swept = work.reservations().delete_ended(self.shared.keep_reservations, DELETED_AT_ONCE).await?;
        work.commit().await?;
        Ok(swept)
    }

    /// Releases the reservations whose time is over; returns how many.
    pub async fn sweep_holds(&self) -> Result<usize, StoreError> {
        let mut work = self.shared.store.begin(Scope::SERVICE).await?;
        let due = work.reservations().list_due(&self.shared.postponed.excluded(), EXPIRED_AT_ONCE).await?;
        work.commit().await?;
        let expire = |(reservation_id, user_id): (HoldId, UserId)| {
            (reservation_id, self.submit(ExpireReservationCommand { reservation_id, user_id }))
        };
        let submitted: Vec<_> = due.into_iter().map(expire).collect();
        let deadline = Instant::now() + PATIENCE;
        let mut swept = 0;
        for (id, waiting) in submitted {
            match answer::<ExpireReservationCommand>(waiting, deadline).await {
                Ok(()) => {
                    self.shared.postponed.done(id);
                    swept += 1;
                }
                Err(error) => {
                    let pause = self.shared.postponed.failed(id);
                    warn!(%error, hold = %id.0, ?pause, "a hold whose time is over could not be given back");
                }
            }
        }
        Ok(swept)
    }
}
