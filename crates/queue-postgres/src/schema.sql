-- One queue is one schema. Times are microseconds since 1970 on the server's clock.

-- One row. A test stops the clock by setting it.
CREATE TABLE clock (stands_at bigint);
INSERT INTO clock VALUES (NULL);

CREATE FUNCTION queue_now() RETURNS bigint LANGUAGE sql AS $$
    SELECT coalesce((SELECT stands_at FROM clock), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
$$;

-- A sequence never gives out a number twice, even if the transaction or the server fails.
CREATE SEQUENCE ids;
CREATE SEQUENCE generations;
CREATE SEQUENCE owners AS integer;

CREATE TABLE messages (
    id bigint PRIMARY KEY,
    owner bytea NOT NULL,
    priority smallint NOT NULL,
    envelope bytea NOT NULL,
    body_len bigint NOT NULL,
    born bigint NOT NULL,
    held boolean NOT NULL DEFAULT false
);

CREATE TABLE deliveries (
    message bigint NOT NULL REFERENCES messages ON DELETE CASCADE,
    number integer NOT NULL,
    key bytea NOT NULL,
    state bytea NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    due bigint NOT NULL,
    -- The last claim: its generation, its owner, its end. NULL once it is finished.
    generation bigint,
    leased_by integer,
    leased_until bigint,
    -- When it becomes claimable.
    free_at bigint NOT NULL GENERATED ALWAYS AS (greatest(due, coalesce(leased_until, due))) STORED,
    -- As in its message.
    owner bytea NOT NULL,
    priority smallint NOT NULL,
    -- Orders higher priorities first, in an index that is ascending in all its columns.
    negated smallint NOT NULL GENERATED ALWAYS AS (-priority) STORED,
    held boolean NOT NULL DEFAULT false,
    PRIMARY KEY (message, number)
) WITH (fillfactor = 70);
CREATE INDEX deliveries_by_time ON deliveries (free_at) WHERE NOT held;
-- As `DueClass` is ordered, and within a class as deliveries are claimed.
CREATE INDEX deliveries_by_class ON deliveries (key, negated, owner, due, message, number) WHERE NOT held;
CREATE INDEX deliveries_by_holder ON deliveries (leased_by, leased_until);

-- A body, by where each part begins.
CREATE TABLE chunks (message bigint NOT NULL, at bigint NOT NULL, octets bytea NOT NULL, PRIMARY KEY (message, at));
ALTER TABLE chunks ALTER octets SET STORAGE EXTERNAL;
-- Messages being received that have chunks already.
CREATE TABLE drafts (id bigint PRIMARY KEY, owner integer NOT NULL);
-- Messages that are gone and still have chunks.
CREATE TABLE graves (message bigint PRIMARY KEY, at bigint NOT NULL);

CREATE FUNCTION hint() RETURNS void LANGUAGE sql AS $$ SELECT pg_notify(current_schema(), 'work') $$;

-- The class of the lock that an owner holds while it lives.
CREATE FUNCTION lock_class() RETURNS integer LANGUAGE sql AS $$ SELECT hashtext(current_schema()) $$;

CREATE FUNCTION spill(draft bigint, me integer, place bigint, part bytea) RETURNS void LANGUAGE sql AS $$
    INSERT INTO drafts VALUES (draft, me) ON CONFLICT DO NOTHING;
    INSERT INTO chunks VALUES (draft, place, part);
$$;

CREATE FUNCTION drop_draft(draft bigint) RETURNS void LANGUAGE sql AS $$
    DELETE FROM chunks WHERE message = draft AND EXISTS (SELECT FROM drafts WHERE id = draft);
    DELETE FROM drafts WHERE id = draft;
$$;

CREATE FUNCTION insert_message(
    new bigint, whose bytea, urgent smallint, about bytea, len bigint, place bigint, part bytea,
    keys bytea[], delays bigint[], states bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE t bigint := queue_now();
BEGIN
    IF place > 0 THEN
        -- An owner that took this one for dead has removed its chunks.
        DELETE FROM drafts WHERE id = new;
        IF NOT FOUND THEN RAISE 'the draft was given up; this owner seemed dead'; END IF;
    END IF;
    IF length(part) > 0 THEN INSERT INTO chunks VALUES (new, place, part); END IF;
    INSERT INTO messages VALUES (new, whose, urgent, about, len, t);
    INSERT INTO deliveries (message, number, key, state, due, owner, priority)
        SELECT new, ordinality - 1, key, state, t + delay, whose, urgent
        FROM unnest(keys, delays, states) WITH ORDINALITY AS each (key, delay, state, ordinality);
    PERFORM hint();
END $$;

-- The classes with a claimable delivery after this one, in order. Those whose deliveries all wait or
-- are leased are passed over one by one.
CREATE FUNCTION due_classes(after_key bytea, after_priority smallint, after_owner bytea, most bigint)
RETURNS TABLE (key bytea, priority smallint, owner bytea) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE t bigint := queue_now();
BEGIN
    WHILE most > 0 LOOP
        SELECT d.key, d.priority, d.owner INTO after_key, after_priority, after_owner FROM deliveries d
            WHERE NOT held AND (d.key, negated, d.owner) > (after_key, -after_priority, after_owner)
            ORDER BY d.key, negated, d.owner LIMIT 1;
        EXIT WHEN NOT FOUND;
        PERFORM FROM deliveries d
            WHERE NOT held AND d.key = after_key AND negated = -after_priority AND d.owner = after_owner
                AND due <= t AND free_at <= t
            ORDER BY due, message, number LIMIT 1;
        CONTINUE WHEN NOT FOUND;
        RETURN QUERY VALUES (after_key, after_priority, after_owner);
        most := most - 1;
    END LOOP;
END $$;

-- Due deliveries of classes in the given order; of one class, the longest due first.
CREATE FUNCTION claim(me integer, keys bytea[], priorities smallint[], owners bytea[], most bigint, lease bigint)
RETURNS TABLE (
    message bigint, number integer, generation bigint, key bytea, owner bytea, priority smallint, envelope bytea,
    state bytea, body_len bigint, attempts integer, age bigint, others bigint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    t bigint := queue_now();
    wanted bigint := most;
    class record;
BEGIN
    FOR class IN
        SELECT each.key, (-each.priority)::smallint AS negated, each.owner
            FROM unnest(keys, priorities, owners) WITH ORDINALITY AS each (key, priority, owner, place) ORDER BY place
    LOOP
        EXIT WHEN most <= 0;
        FOR message, number IN
            SELECT d.message, d.number FROM deliveries d
                WHERE NOT held AND d.key = class.key AND negated = class.negated AND d.owner = class.owner
                    AND due <= t AND free_at <= t
                ORDER BY due, message, number LIMIT most FOR UPDATE SKIP LOCKED
        LOOP
            RETURN QUERY UPDATE deliveries d
                SET generation = nextval('generations'), leased_by = me, leased_until = t + lease
                FROM messages m
                WHERE d.message = claim.message AND d.number = claim.number AND m.id = d.message
                RETURNING d.message, d.number, d.generation, d.key, d.owner, d.priority, m.envelope, d.state,
                    m.body_len, d.attempts, t - m.born,
                    (SELECT count(*) - 1 FROM deliveries o WHERE o.message = d.message);
            most := most - 1;
        END LOOP;
    END LOOP;
    -- Other owners look once a minute. A lease that may end earlier must set their timers.
    IF most < wanted AND lease < 60000000 THEN PERFORM hint(); END IF;
END $$;

-- The deliveries of one message whose state begins with a mark. `moment`: 0 now, 1 at rest, 2
-- alone.
CREATE FUNCTION gather(me integer, which bigint, marks bytea[], moment integer, lease bigint) RETURNS TABLE (
    message bigint, number integer, generation bigint, key bytea, owner bytea, priority smallint, envelope bytea,
    state bytea, body_len bigint, attempts integer, age bigint, others bigint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE t bigint := queue_now();
BEGIN
    -- Waits for those who finish a delivery, and keeps out those who claim one.
    PERFORM FROM messages WHERE id = which AND NOT held FOR UPDATE;
    IF NOT FOUND THEN RETURN; END IF;
    PERFORM FROM deliveries d WHERE d.message = which ORDER BY d.number FOR UPDATE;
    IF moment > 0 AND EXISTS (
        SELECT FROM deliveries d WHERE d.message = which AND (
            d.leased_until > t OR (
                (moment = 2 OR d.due <= t)
                AND NOT EXISTS (SELECT FROM unnest(marks) mark WHERE substring(d.state FROM 1 FOR length(mark)) = mark)
            )
        )
    ) THEN RETURN; END IF;
    RETURN QUERY WITH leased AS (
        UPDATE deliveries d SET generation = nextval('generations'), leased_by = me, leased_until = t + lease
        WHERE d.message = which AND coalesce(d.leased_until <= t, true)
            AND EXISTS (SELECT FROM unnest(marks) mark WHERE substring(d.state FROM 1 FOR length(mark)) = mark)
        RETURNING d.number, d.generation, d.key, d.owner, d.priority, d.state, d.attempts
    )
    SELECT m.id, l.number, l.generation, l.key, l.owner, l.priority, m.envelope, l.state, m.body_len, l.attempts,
        t - m.born, (SELECT count(*) - 1 FROM deliveries o WHERE o.message = which)
        FROM leased l, messages m WHERE m.id = which ORDER BY l.number;
    IF FOUND THEN PERFORM hint(); END IF;
END $$;

CREATE FUNCTION leases_of(me integer) RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM deliveries WHERE leased_by = me AND leased_until > (SELECT queue_now())
$$;

CREATE FUNCTION extend(which bigint, what integer, claim bigint, lease bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    until bigint := queue_now() + lease;
    before bigint;
BEGIN
    SELECT leased_until INTO before FROM deliveries
        WHERE message = which AND number = what AND generation = claim FOR UPDATE;
    IF NOT FOUND THEN RETURN false; END IF;
    UPDATE deliveries SET leased_until = until WHERE message = which AND number = what;
    -- The other owners' timers are set for later.
    IF until < before THEN PERFORM hint(); END IF;
    RETURN true;
END $$;

CREATE FUNCTION give_back(me integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE t bigint := queue_now();
BEGIN
    UPDATE deliveries SET leased_until = t WHERE (message, number) IN (
        SELECT message, number FROM deliveries WHERE leased_by = me AND leased_until > t FOR UPDATE SKIP LOCKED
    );
    PERFORM hint();
END $$;

-- False: the lease is stale. `new` NULL: it is done. `delay` NULL: it is due as before.
CREATE FUNCTION finish(which bigint, what integer, claim bigint, delay bigint, new bytea) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    -- Two owners that finish the last two deliveries must not both see another one left.
    PERFORM FROM messages WHERE id = which FOR UPDATE;
    IF new IS NULL THEN
        DELETE FROM deliveries WHERE message = which AND number = what AND generation = claim;
        IF NOT FOUND THEN RETURN false; END IF;
        IF NOT EXISTS (SELECT FROM deliveries WHERE message = which) THEN PERFORM bury(which); END IF;
    ELSE
        UPDATE deliveries SET due = coalesce(queue_now() + delay, due), state = new,
            attempts = attempts + CASE WHEN delay IS NULL THEN 0 ELSE 1 END,
            generation = NULL, leased_by = NULL, leased_until = NULL
            WHERE message = which AND number = what AND generation = claim;
        IF NOT FOUND THEN RETURN false; END IF;
        PERFORM hint();
    END IF;
    RETURN true;
END $$;

-- False: there is no such message.
CREATE FUNCTION bury(which bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM messages WHERE id = which;
    IF NOT FOUND THEN RETURN false; END IF;
    INSERT INTO graves VALUES (which, queue_now());
    RETURN true;
END $$;

-- These three return NULL if there is no such message.

CREATE FUNCTION set_held(which bigint, new boolean) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE was boolean;
BEGIN
    SELECT held INTO was FROM messages WHERE id = which FOR UPDATE;
    IF NOT FOUND OR was = new THEN RETURN CASE WHEN FOUND THEN 0 END; END IF;
    UPDATE messages SET held = new WHERE id = which;
    UPDATE deliveries SET held = new WHERE message = which;
    PERFORM hint();
    RETURN 1;
END $$;

CREATE FUNCTION reschedule(which bigint, of bytea, delay bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE concerned bigint;
BEGIN
    PERFORM FROM messages WHERE id = which FOR UPDATE;
    IF NOT FOUND THEN RETURN NULL; END IF;
    UPDATE deliveries SET due = queue_now() + delay WHERE message = which AND (of IS NULL OR key = of);
    GET DIAGNOSTICS concerned = ROW_COUNT;
    PERFORM hint();
    RETURN concerned;
END $$;

CREATE FUNCTION reroute(which bigint, of bytea, new bytea) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE concerned bigint;
BEGIN
    PERFORM FROM messages WHERE id = which FOR UPDATE;
    IF NOT FOUND THEN RETURN NULL; END IF;
    UPDATE deliveries SET key = new WHERE message = which AND (of IS NULL OR key = of);
    GET DIAGNOSTICS concerned = ROW_COUNT;
    PERFORM hint();
    RETURN concerned;
END $$;

-- Removes the drafts of dead owners, and the bodies of messages that have been gone long enough.
CREATE FUNCTION sweep(patience bigint) RETURNS void LANGUAGE sql AS $$
    WITH dead AS (
        DELETE FROM drafts WHERE NOT EXISTS (
            SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = lock_class()::oid AND objid = owner::oid
        ) RETURNING id
    ), gone AS (
        DELETE FROM graves WHERE message IN (
            SELECT message FROM graves WHERE at <= queue_now() - patience LIMIT 100 FOR UPDATE SKIP LOCKED
        ) RETURNING message
    )
    DELETE FROM chunks WHERE message IN (SELECT id FROM dead UNION ALL SELECT message FROM gone);
$$;
