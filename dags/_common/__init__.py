"""What the DAG files share. On the import path because Airflow puts the bundle's root there."""
