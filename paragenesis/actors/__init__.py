"""Ray: hosts the stages of the engine as actors. The only folder that imports ray."""
