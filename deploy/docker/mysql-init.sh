#!/bin/sh
# Run once by the mysql image, on an empty data directory: one database and one
# account for each service, which can reach nothing else.
set -eu
for name in im_auth im_friend im_logic; do
	pattern=$(printf '%s' "$name" | sed 's/_/\\_/g')
	mysql --user=root --password="$MYSQL_ROOT_PASSWORD" --execute="
		CREATE DATABASE IF NOT EXISTS \`$name\` CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci;
		CREATE USER IF NOT EXISTS '$name'@'%' IDENTIFIED BY '$IM_MYSQL_PASSWORD';
		GRANT ALL PRIVILEGES ON \`$pattern\`.* TO '$name'@'%';"
done
