-- +goose Up
-- A member's session with his group stays, hidden, when he deletes it. These were
-- deleted before that; the ids of members and of sessions are from one allocator.
INSERT INTO sessions (id, owner_id, kind, target_id, hidden, created_at_ms)
SELECT m.id, m.user_id, 2, m.conversation_id, 1, m.joined_at_ms
FROM members m
JOIN chat_groups g ON g.id = m.conversation_id
LEFT JOIN sessions s ON s.owner_id = m.user_id AND s.kind = 2 AND s.target_id = m.conversation_id
WHERE m.end_seq = 0 AND s.id IS NULL;
