-- +goose Up
-- What waits for somebody's answer is listed however much has come since.
ALTER TABLE friend_requests ADD KEY /*M! IF NOT EXISTS */ friend_requests_open (recipient_id, waiting, created_at);
