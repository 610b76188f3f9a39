//! The columns that `design/schema.md` and the seeds name, table by table.
//!
//! A line is a name, a type and, if specified, a default. `!` after the type: never NULL; `?`: may be NULL; nothing:
//! the design does not say. `word` is any text type, `number` any number type, if no length is specified.

pub const COLUMNS: &str = "
@ auth.users
id uuid!
email varchar(255)!
encrypted_password varchar(255)?
created_at timestamptz!
updated_at timestamptz!

@ users
id uuid!
name varchar(100)!
role word! 'user'
plan_id varchar(50)! 'free'
stripe_customer_id varchar(100)?
wallet_address word?
token_balance bigint! 100
token_reserved bigint! 0
created_at timestamptz! CURRENT_TIMESTAMP
updated_at timestamptz! CURRENT_TIMESTAMP

@ organizations
id uuid!
name word!
owner_id uuid?
created_at timestamptz! CURRENT_TIMESTAMP

@ organization_members
organization_id uuid!
user_id uuid!
role word!

@ plans
id varchar(50)!
name varchar(100)!
display_name varchar(100)!
description text?
price_monthly decimal(10,2)?
price_yearly decimal(10,2)?
currency char(3) 'JPY'
stripe_price_id_monthly varchar(100)?
stripe_price_id_yearly varchar(100)?
is_active boolean! true
created_at timestamptz! CURRENT_TIMESTAMP
updated_at timestamptz! CURRENT_TIMESTAMP

@ features
id varchar(50)!
name varchar(100)!
display_name varchar(100)!
description text?
kind word!
unit word?
is_active boolean! true
created_at timestamptz! CURRENT_TIMESTAMP
updated_at timestamptz! CURRENT_TIMESTAMP

@ plan_features
plan_id varchar(50)!
feature_id varchar(50)!
enabled boolean! false
limit_value bigint?
limit_period word! 'month'
overage word! 'block'
created_at timestamptz! CURRENT_TIMESTAMP
updated_at timestamptz! CURRENT_TIMESTAMP

@ feature_overrides
user_id uuid!
feature_id varchar(50)!
enabled boolean!
limit_value bigint?
reason word?
expires_at timestamptz?

@ user_subscriptions
id uuid! gen_random_uuid()
user_id uuid!
plan_id varchar(50)!
stripe_subscription_id varchar(100)?
stripe_price_id word?
billing_interval word?
status varchar(20)!
trial_start timestamptz?
trial_end timestamptz?
current_period_start timestamptz?
current_period_end timestamptz?
cancel_at_period_end boolean! false
created_at timestamptz! CURRENT_TIMESTAMP
updated_at timestamptz! CURRENT_TIMESTAMP

@ stripe_events
id text!
type word!
created timestamptz!
payload jsonb!
received_at timestamptz!
processed_at timestamptz?
error text?

@ token_transactions
id uuid!
user_id uuid!
amount bigint!
type word!
description text?
reference_id uuid?
created_at timestamptz! CURRENT_TIMESTAMP
balance_after bigint!
idempotency_key word?
seq bigint!
prev_hash bytea?
hash bytea!

@ billing_records
id uuid!
user_id uuid!
amount number!
currency word!
transaction_hash word
kind word!
status word!
created_at timestamptz! CURRENT_TIMESTAMP

@ usage_counters
user_id uuid!
feature_id varchar(50)!
period word!
period_start timestamptz!
used bigint! 0
reserved bigint! 0
overage bigint! 0

@ usage_events
id uuid!
user_id uuid!
feature_id varchar(50)!
amount bigint!
api_key_id uuid?
created_at timestamptz!

@ usage_reservations
id uuid!
user_id uuid!
feature_id varchar(50)!
period_start timestamptz!
amount bigint!
beyond bigint! 0
status word! 'pending'
expires_at timestamptz!
phase word!

@ idempotency_keys
user_id uuid!
key text!
digest bytea!

@ ai_usage_logs
id uuid! gen_random_uuid()
user_id uuid!
provider varchar(20)!
model text?
tokens_used bigint?
cost decimal(10,4)?
created_at timestamptz! CURRENT_TIMESTAMP
input_tokens bigint
output_tokens bigint
cached_tokens bigint
session_id uuid?
api_key_id uuid?
latency_ms number?
outcome word
cost_nano_usd bigint
price_version word?
usage jsonb?
source word
unpaid_tokens bigint! 0

@ usage_rollups
user_id uuid!
feature_id varchar(50)!

@ chat_sessions
id uuid!
user_id uuid!
api_key_id uuid?
title word?
tokens_used bigint 0
model text?
system text?
cost_nano_usd bigint! 0
created_at timestamptz! CURRENT_TIMESTAMP
updated_at timestamptz! CURRENT_TIMESTAMP
ended_at timestamptz?

@ chat_messages
id uuid!
session_id uuid!
role word!
content text!
tokens bigint
cost_nano_usd bigint! 0
model text?
usage_log_id uuid?
seq bigint!
created_at timestamptz! CURRENT_TIMESTAMP

@ api_keys
id uuid!
user_id uuid!
key_hash varchar(255)!
key_prefix varchar(20)!
name varchar(100)
permissions jsonb
is_active boolean! true
last_used_at timestamptz?
expires_at timestamptz?
requests_per_minute bigint?
tokens_per_minute bigint?
monthly_cost_nano_usd bigint?
created_at timestamptz! CURRENT_TIMESTAMP

@ api_key_counters
api_key_id uuid!
period varchar(20)!
period_start timestamptz!
requests bigint! 0
tokens bigint! 0
cost_nano_usd bigint! 0
tokens_reserved bigint! 0
cost_reserved_nano_usd bigint! 0

@ generated_apis
id uuid!
user_id uuid!
name word!
description word?
code word
endpoint word
created_at timestamptz! CURRENT_TIMESTAMP
updated_at timestamptz! CURRENT_TIMESTAMP
is_active boolean! true

@ api_usage
id uuid!
api_id uuid!
timestamp timestamptz!
request_count number!
response_time number

@ learning_progress
id uuid!
user_id uuid!
lesson_id word!
status word!
started_at timestamptz?
completed_at timestamptz?

@ tutorial_completion
id uuid!
user_id uuid!
tutorial_id word!
completion_percentage number!
last_accessed timestamptz

@ refresh_tokens
user_id uuid!
family uuid!
replaced_by uuid?

@ audit_logs
id uuid!
table_name word!
record_id text!
action word!
old_values jsonb?
new_values jsonb?
actor_id uuid?
reason word?
created_at timestamptz!

@ user_plan_summary
id uuid
email text
name varchar(100)
plan_type varchar(50)
plan_status word
plan_display_name varchar(100)
price_monthly decimal(10,2)
subscription_status varchar(20)
current_period_end timestamptz
trial_end timestamptz
cancel_at_period_end boolean

@ user_feature_access
user_id uuid
email text
plan_type varchar(50)
feature_id varchar(50)
feature_name varchar(100)
enabled boolean
limit_value bigint

@ ai_usage_monthly
user_id uuid
usage_month timestamptz
provider varchar(20)
request_count bigint
total_tokens number
total_cost number

@ integrity_findings
finding word
subject word
detail word
";
