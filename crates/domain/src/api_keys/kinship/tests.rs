use std::collections::HashMap;

use chrono::TimeDelta;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::api_keys::{KEYS_PER_USER, KeyBudget, may_create, rotate};
use crate::identity::Permission;
use crate::prices::NanoUsd;
use crate::usage::{ApiKeyReservation, ApiKeyUsage, ApiKeyWindows, admit};
use crate::users::UserId;

fn start() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
}

fn costs(cost: Option<i64>) -> KeyLimits {
    KeyLimits { monthly_cost: cost.map(NanoUsd), ..KeyLimits::NONE }
}

fn draft(permissions: &[Permission], limits: KeyLimits, expires_at: Option<DateTime<Utc>>) -> ApiKeyDraft {
    ApiKeyDraft {
        name: "k".into(),
        permissions: permissions.iter().copied().collect(),
        on_behalf: false,
        limits,
        expires_at,
        origin: KeyOrigin::default(),
    }
}

/// All keys of one owner, as the database would store them.
struct Keys {
    all: Vec<ApiKey>,
    month: HashMap<ApiKeyId, ApiKeyUsage>,
    now: DateTime<Utc>,
}

impl Keys {
    fn new() -> Self {
        Self { all: Vec::new(), month: HashMap::new(), now: start() }
    }

    fn insert(&mut self, draft: ApiKeyDraft) -> usize {
        let id = ApiKeyId(Uuid::from_u128(self.all.len() as u128 + 1));
        self.all.push(ApiKey {
            id,
            user_id: UserId(Uuid::nil()),
            name: draft.name,
            prefix: "sk_live_x".into(),
            last_four: "abcd".into(),
            permissions: draft.permissions,
            on_behalf: draft.on_behalf,
            limits: draft.limits,
            is_active: true,
            last_used_at: None,
            expires_at: draft.expires_at,
            rotated_to: None,
            lineage_id: draft.origin.lineage_id.unwrap_or(id),
            makers: draft.origin.makers,
            revoked_at: None,
            created_at: self.now,
        });
        self.all.len() - 1
    }

    fn by_id(&self, id: ApiKeyId) -> &ApiKey {
        self.all.iter().find(|key| key.id == id).unwrap()
    }

    fn holder(&self, which: usize) -> KeyHolder {
        let key = self.all[which].clone();
        let budget = |key: &ApiKey| KeyBudget { lineage_id: key.lineage_id, limits: key.limits };
        let makers: Vec<KeyBudget> = key.makers.iter().map(|id| budget(self.by_id(*id))).collect();
        KeyHolder { budgets: KeyBudgets::new(budget(&key), makers), role: Role::User, key }
    }

    fn usable(&self) -> i64 {
        i64::try_from(self.all.iter().filter(|key| key.is_usable(self.now)).count()).unwrap()
    }

    fn child(&mut self, maker: usize, draft: &ApiKeyDraft) -> Result<usize, KeyRefused> {
        let draft = self.holder(maker).child(draft, self.now)?;
        may_create(&draft, Role::User, &Role::User.permissions(), self.usable(), self.now)?;
        Ok(self.insert(draft))
    }

    fn rotated(&mut self, by: usize, target: usize, overlap: TimeDelta) -> Result<usize, KeyRefused> {
        self.holder(by).may_rotate(&self.holder(target), self.now)?;
        let rotation = rotate(&self.all[target], overlap, self.usable(), self.now)?;
        let successor = self.insert(rotation.successor);
        let id = self.all[successor].id;
        let old = &mut self.all[target];
        (old.rotated_to, old.expires_at) = (Some(id), Some(rotation.old_expires_at));
        Ok(successor)
    }

    fn limit(&mut self, target: usize, limits: KeyLimits) {
        let lineage_id = self.all[target].lineage_id;
        self.all.iter_mut().filter(|key| key.lineage_id == lineage_id).for_each(|key| key.limits = limits);
    }

    fn limited(&mut self, by: usize, target: usize, limits: KeyLimits) -> Result<(), KeyRefused> {
        self.holder(by).may_limit(&self.holder(target), &limits, self.now)?;
        self.limit(target, limits);
        Ok(())
    }

    /// Whether a call of this cost was granted.
    fn spend(&mut self, which: usize, cost: i64) -> bool {
        let holder = self.holder(which);
        if !holder.key.is_usable(self.now) {
            return false;
        }
        let share = ApiKeyReservation { windows: ApiKeyWindows::at(self.now), tokens: 1, cost_nano_usd: cost };
        let admits = |budget: &KeyBudget| {
            let month = self.month.get(&budget.lineage_id).copied().unwrap_or_default();
            admit(&budget.limits, &ApiKeyUsage::default(), &month, &share).is_ok()
        };
        let is_granted = holder.budgets.iter().all(admits);
        for budget in holder.budgets.iter().filter(|_| is_granted) {
            let tally = self.month.entry(budget.lineage_id).or_default();
            tally.hold(&share);
            tally.settle(&share, Some((1, cost)));
        }
        is_granted
    }
}

#[test]
fn a_child_has_no_more_than_its_maker_has_left() {
    use Permission::{AiChat, KeysManage, UsageWrite};
    let end = start() + TimeDelta::hours(5);
    let mut keys = Keys::new();
    let maker = keys.insert(draft(&[KeysManage, AiChat], costs(Some(10)), Some(end)));
    let sooner = Some(end - TimeDelta::hours(1));
    for (what, draft, expected) in [
        ("the same", draft(&[KeysManage, AiChat], costs(Some(10)), Some(end)), Ok(())),
        ("less", draft(&[AiChat], costs(Some(1)), sooner), Ok(())),
        ("no expiry", draft(&[AiChat], costs(Some(10)), None), Ok(())),
        ("a right more", draft(&[UsageWrite], costs(Some(10)), sooner), Err(KeyRefused::BeyondCaller(UsageWrite))),
        ("no limit", draft(&[AiChat], costs(None), sooner), Err(KeyRefused::BeyondCallersLimits)),
        ("a wider limit", draft(&[AiChat], costs(Some(11)), sooner), Err(KeyRefused::BeyondCallersLimits)),
        (
            "a longer life",
            draft(&[AiChat], costs(Some(1)), Some(end + TimeDelta::seconds(1))),
            Err(KeyRefused::BeyondCallersLife),
        ),
    ] {
        assert_eq!(keys.child(maker, &draft).map(drop), expected, "{what}");
    }
    let inherited = keys.child(maker, &draft(&[AiChat], costs(Some(10)), None)).unwrap();
    assert_eq!((keys.all[inherited].expires_at, &keys.all[inherited].makers), (Some(end), &vec![keys.all[maker].id]));
    keys.now = end;
    let late = keys.child(maker, &draft(&[AiChat], costs(Some(1)), None));
    assert_eq!(late, Err(KeyRefused::CallerEnded));
}

#[test]
fn children_have_children_down_to_a_bound() {
    let mut keys = Keys::new();
    let manage = draft(&[Permission::KeysManage], KeyLimits::NONE, None);
    let mut last = keys.insert(manage.clone());
    for _ in 0..MAKERS_MAX {
        last = keys.child(last, &manage).unwrap();
    }
    assert_eq!(keys.child(last, &manage), Err(KeyRefused::TooManyMakers));
}

#[test]
fn a_limited_key_rotates_itself_and_its_children_only() {
    let mut keys = Keys::new();
    let manage = |limits| draft(&[Permission::KeysManage], limits, None);
    let own = keys.insert(manage(costs(Some(10))));
    let child = keys.child(own, &manage(costs(Some(10)))).unwrap();
    let free = keys.insert(manage(KeyLimits::NONE));
    let sibling = keys.insert(manage(costs(Some(1))));
    let hour = TimeDelta::hours(1);
    for (what, by, target, expected) in [
        ("a sibling", own, sibling, Err(KeyRefused::BeyondCallersLimits)),
        ("a free key", own, free, Err(KeyRefused::BeyondCallersLimits)),
        ("its maker", child, own, Err(KeyRefused::BeyondCallersLimits)),
        ("another, by a free key", free, sibling, Ok(())),
        ("a child", own, child, Ok(())),
        ("itself", own, own, Ok(())),
    ] {
        assert_eq!(keys.rotated(by, target, hour).map(drop), expected, "{what}");
    }
    let successor = keys.all.len() - 1;
    let again = keys.rotated(own, successor, hour);
    assert_eq!(again, Err(KeyRefused::BeyondCallersLife), "in its overlap it gets nothing that outlives it");
}

#[test]
fn a_key_loosens_its_children_at_most() {
    let mut keys = Keys::new();
    let manage = |limits| draft(&[Permission::KeysManage], limits, None);
    let own = keys.insert(manage(costs(Some(10))));
    let child = keys.child(own, &manage(costs(Some(5)))).unwrap();
    let sibling = keys.insert(manage(costs(Some(1))));
    let free = keys.insert(manage(KeyLimits::NONE));
    let refused = || Err(KeyRefused::BeyondCallersLimits);
    for (what, by, target, cost, expected) in [
        ("itself", own, own, Some(11), refused()),
        ("its maker", child, own, Some(11), refused()),
        ("a sibling", own, sibling, Some(2), refused()),
        ("a child beyond itself", own, child, Some(11), refused()),
        ("a child within itself", own, child, Some(10), Ok(())),
        ("a child by itself", child, child, None, refused()),
        ("tighter, whichever", own, free, Some(3), Ok(())),
        ("a key that got limits", free, free, None, refused()),
        ("tighter, its maker", child, own, Some(9), Ok(())),
    ] {
        assert_eq!(keys.limited(by, target, costs(cost)), expected, "{what}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Child(usize, Option<i64>, Option<i64>, bool),
    Rotate(usize, usize, i64),
    Limit(usize, usize, Option<i64>),
    Spend(usize, i64),
    Wait(i64),
    OwnerLimits(usize, i64),
}

fn step() -> impl Strategy<Value = Step> {
    let cost = || proptest::option::weighted(0.8, 1_i64..120);
    prop_oneof![
        (0_usize..12, cost(), proptest::option::of(1_i64..60), any::<bool>())
            .prop_map(|(maker, cost, hours, manages)| Step::Child(maker, cost, hours, manages)),
        (0_usize..12, 0_usize..20, 0_i64..30).prop_map(|(by, target, overlap)| Step::Rotate(by, target, overlap)),
        (0_usize..12, 0_usize..20, cost()).prop_map(|(by, target, cost)| Step::Limit(by, target, cost)),
        (0_usize..12, 1_i64..40).prop_map(|(which, cost)| Step::Spend(which, cost)),
        (0_usize..12, 1_i64..40).prop_map(|(which, cost)| Step::Spend(which, cost)),
        (1_i64..8).prop_map(Step::Wait),
        (0_usize..20, 1_i64..150).prop_map(|(target, cost)| Step::OwnerLimits(target, cost)),
    ]
}

proptest! {
    /// An attacker has one of several keys of an owner and makes any calls with it and with all keys obtained through
    /// it. The total spent stays within the budget of that key, and no key obtained has more permissions, wider limits
    /// or a longer lifetime.
    #[test]
    fn one_key_never_leads_to_more_than_itself(budget in 1_i64..150, steps in proptest::collection::vec(step(), 0..60)) {
        use Permission::{AiChat, KeysManage, UsageWrite};
        let end = start() + TimeDelta::hours(48);
        let mut keys = Keys::new();
        let first = keys.insert(draft(&[KeysManage, AiChat], costs(Some(budget)), Some(end)));
        keys.insert(draft(&[KeysManage, AiChat], KeyLimits::NONE, None));
        keys.insert(draft(&[KeysManage, AiChat], costs(Some(budget)), Some(end)));
        keys.insert(draft(&[AiChat], costs(Some(1)), Some(end)));
        keys.insert(draft(&[UsageWrite], costs(Some(1)), Some(end)));
        let (mut known, mut spent, mut widest) = (vec![first], 0, budget);
        for step in steps {
            let one = |which: usize, of: &[usize]| of[which % of.len()];
            let any = |which: usize, keys: &Keys| which % keys.all.len();
            match step {
                Step::Child(maker, cost, hours, manages) => {
                    let permissions: &[Permission] = if manages { &[KeysManage, AiChat] } else { &[AiChat] };
                    let expires_at = hours.map(|hours| keys.now + TimeDelta::hours(hours));
                    known.extend(keys.child(one(maker, &known), &draft(permissions, costs(cost), expires_at)));
                }
                Step::Rotate(by, target, overlap) => {
                    let target = any(target, &keys);
                    known.extend(keys.rotated(one(by, &known), target, TimeDelta::hours(overlap)));
                }
                Step::Limit(by, target, cost) => {
                    let target = any(target, &keys);
                    drop(keys.limited(one(by, &known), target, costs(cost)));
                }
                Step::Spend(which, cost) => {
                    if keys.spend(one(which, &known), cost) {
                        spent += cost;
                        let limit = keys.all[first].limits.monthly_cost.unwrap();
                        prop_assert!(spent <= limit.0, "{spent} of {limit}");
                    }
                }
                Step::Wait(hours) => keys.now += TimeDelta::hours(hours),
                Step::OwnerLimits(target, cost) => {
                    let target = any(target, &keys);
                    keys.limit(target, costs(Some(cost)));
                    widest = widest.max(cost);
                }
            }
            let lineage = keys.all[first].lineage_id;
            prop_assert_eq!(keys.month.get(&lineage).map_or(0, |tally| tally.cost), spent, "all of it is counted there");
            prop_assert!(keys.usable() <= KEYS_PER_USER);
            for which in &known {
                let holder = keys.holder(*which);
                prop_assert_eq!(keys.all[first].permissions.lacks(&holder.key.permissions), None);
                prop_assert!(holder.key.expires_at.is_some_and(|expires_at| expires_at <= end));
                prop_assert!(holder.budgets.count_on(lineage), "{holder:?}");
                prop_assert!(holder.key.limits.are_within(&costs(Some(widest))), "{holder:?}");
            }
        }
    }
}

#[test]
fn a_hundred_and_thirty_rotations_with_an_overlap_stay_within_the_bound() {
    let mut keys = Keys::new();
    let mut last = keys.insert(draft(&[Permission::KeysManage], costs(Some(10)), None));
    let mut refused = 0;
    for _ in 0..130 {
        match keys.rotated(last, last, TimeDelta::days(7)) {
            Ok(successor) => last = successor,
            Err(why) => {
                assert_eq!(why, KeyRefused::TooMany);
                refused += 1;
            }
        }
        assert!(keys.spend(last, 1) || keys.month[&keys.all[0].lineage_id].cost == 10);
    }
    assert_eq!((keys.usable(), refused), (KEYS_PER_USER, 31));
    assert_eq!(keys.month[&keys.all[0].lineage_id].cost, 10, "all successors share one budget");
}
