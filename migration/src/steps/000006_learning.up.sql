-- Learning: how far a user came in lessons and tutorials.

CREATE TABLE public.learning_progress (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    lesson_id varchar(100) NOT NULL,
    status varchar(20) NOT NULL DEFAULT 'not_started',
    started_at timestamptz,
    completed_at timestamptz,
    CONSTRAINT learning_progress_pkey PRIMARY KEY (id),
    CONSTRAINT learning_progress_user_id_lesson_id_key UNIQUE (user_id, lesson_id),
    CONSTRAINT fk_learning_progress_user FOREIGN KEY (user_id) REFERENCES public.users (id) ON DELETE CASCADE,
    CONSTRAINT check_learning_status CHECK (status IN ('not_started', 'in_progress', 'completed')),
    CONSTRAINT check_learning_times CHECK (completed_at >= started_at)
);

CREATE TABLE public.tutorial_completion (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    tutorial_id varchar(100) NOT NULL,
    completion_percentage integer NOT NULL DEFAULT 0,
    last_accessed timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT tutorial_completion_pkey PRIMARY KEY (id),
    CONSTRAINT tutorial_completion_user_id_tutorial_id_key UNIQUE (user_id, tutorial_id),
    CONSTRAINT fk_tutorial_completion_user FOREIGN KEY (user_id) REFERENCES public.users (id) ON DELETE CASCADE,
    CONSTRAINT check_completion_percentage CHECK (completion_percentage BETWEEN 0 AND 100)
);
