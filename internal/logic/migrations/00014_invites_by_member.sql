-- +goose Up
ALTER TABLE invites ADD KEY by_member (group_id, user_id);
